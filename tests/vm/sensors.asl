// What a guest measures, for test_vm_sensors.py: a table of ACPI that is given to QEMU beside its own (-acpitable). Its hardware are the scratch
// registers of three serial lines, which hold whatever is written to them: how hot it is in degrees, how full the battery is in percent with the
// mains at bit 7, and the state of the processor. Nothing raises an interrupt, so the mains and the battery are told of when the heat is asked for.
DefinitionBlock ("", "SSDT", 2, "MK9P", "SENSORS", 1)
{
    External (\_SB.CPUS.C000, DeviceObj)

    OperationRegion (COM2, SystemIO, 0x02FF, 1)
    OperationRegion (COM3, SystemIO, 0x03EF, 1)
    Field (COM2, ByteAcc, NoLock, Preserve) { HEAT, 8 }
    Field (COM3, ByteAcc, NoLock, Preserve) { FULL, 7, PLUG, 1 }

    Scope (\_SB)
    {
        Name (SEEN, Ones)

        Device (AC)
        {
            Name (_HID, "ACPI0003")
            Method (_PSR) { Return (PLUG) }
        }

        Device (BAT0)
        {
            Name (_HID, EisaId ("PNP0C0A"))
            Name (_PCL, Package () { \_SB })
            Method (_STA) { Return (0x1F) }
            Method (_BIF) { Return (Package () { 1, 5000, 4000, 1, 12000, 400, 200, 10, 10, "mk9p", "1", "LION", "Lab" }) }
            Method (_BST)
            {
                Local0 = Package (4) { 1, 1500, 0, 11500 }
                If (PLUG) { Local0 [0] = 2 }
                Local0 [2] = FULL * 40
                Return (Local0)
            }
            Method (_BTP, 1) { }
        }

        PowerResource (FANP, 0, 0)
        {
            Name (RUNS, 0)
            Method (_STA) { Return (RUNS) }
            Method (_ON) { RUNS = 1 }
            Method (_OFF) { RUNS = 0 }
        }

        Device (FAN0)
        {
            Name (_HID, EisaId ("PNP0C0B"))
            Name (_PR0, Package () { FANP })
        }
    }

    Scope (\_TZ)
    {
        ThermalZone (TZ0)
        {
            Method (_TMP, 0, Serialized)
            {
                If ((FULL | (PLUG << 7)) != \_SB.SEEN)
                {
                    \_SB.SEEN = (FULL | (PLUG << 7))
                    Notify (\_SB.AC, 0x80)
                    Notify (\_SB.BAT0, 0x80)
                }
                Return (2732 + HEAT * 10)
            }
            Name (_CRT, 4232)
            Name (_AC0, 3332)
            Name (_AL0, Package () { \_SB.FAN0 })
            Name (_TZP, 10)  // the kernel asks every second
        }
    }

    Scope (\_SB.CPUS.C000)
    {
        Name (_PCT, Package () {
            ResourceTemplate () { Register (SystemIO, 8, 0, 0x02EF) },
            ResourceTemplate () { Register (SystemIO, 8, 0, 0x02EF) } })
        Name (_PSS, Package () {
            Package () { 2000, 20000, 10, 10, 1, 1 },
            Package () { 1500, 15000, 10, 10, 2, 2 },
            Package () { 1000, 10000, 10, 10, 3, 3 } })
        Name (_PPC, 0)
    }
}
