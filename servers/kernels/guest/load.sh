# load.sh [NAME...]: load modules of the initramfs that the boot did not load; without names all of them.
for m in ${*:-$(cat /run/guest/modules/more)}; do /run/guest/busybox insmod /run/guest/modules/$m.ko; done
