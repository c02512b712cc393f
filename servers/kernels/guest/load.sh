# load.sh [NAME...]: load modules of the initramfs that were not loaded at boot; without names all of them.
for m in ${*:-$(cat /run/guest/modules/more)}; do /run/guest/busybox insmod /run/guest/modules/$m.ko; done
