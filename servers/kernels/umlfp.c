/* umlfp: lets Debian's linux.uml 6.1 run on CPUs whose XSAVE area is larger than UML's fixed buffer of 2696 bytes (AMX).
 *
 * UML keeps its processes' extended state by PTRACE_{GET,SET}REGSET(NT_X86_XSTATE) and dies with "ptrace set fp regs failed, errno = 14"
 * when it gives back less than the host's whole area. Loaded with LD_PRELOAD, this library pads what UML sets and trims what it gets. The AMX state
 * lies past UML's buffer, so it is marked as not in use (XSTATE_BV bits 17 and 18, at byte 512), and its loss is consistent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NT_X86_XSTATE 0x202
#define XSTATE_BV 512
#define AMX (3ULL << 17)

static unsigned long full;                                 /* size of the host's whole area, once it was seen */
static char big[65536] __attribute__((aligned(64)));       /* one is enough: UML 6.1 calls ptrace from one thread */

static void without_amx(char *area)
{
	*(uint64_t *)(area + XSTATE_BV) &= ~AMX;
}

long ptrace(enum __ptrace_request req, ...)
{
	va_list ap;
	va_start(ap, req);
	long pid = va_arg(ap, long);
	void *addr = va_arg(ap, void *), *data = va_arg(ap, void *);
	va_end(ap);

	if ((req == PTRACE_GETREGSET || req == PTRACE_SETREGSET) && (long)addr == NT_X86_XSTATE) {
		struct iovec *user = data, iov = { big, sizeof big };
		if (req == PTRACE_GETREGSET) {
			long ret = syscall(SYS_ptrace, req, pid, addr, &iov);
			if (ret < 0)
				return ret;
			full = iov.iov_len;
			if (user->iov_len > full)
				user->iov_len = full;
			memcpy(user->iov_base, big, user->iov_len);
			without_amx(user->iov_base);
			return ret;
		}
		if (!full || user->iov_len >= full)
			return syscall(SYS_ptrace, req, pid, addr, user);
		memcpy(big, user->iov_base, user->iov_len);
		memset(big + user->iov_len, 0, full - user->iov_len);
		without_amx(big);
		iov.iov_len = full;
		return syscall(SYS_ptrace, req, pid, addr, &iov);
	}
	if (req == PTRACE_PEEKTEXT || req == PTRACE_PEEKDATA || req == PTRACE_PEEKUSER) {  /* glibc returns the word itself */
		long word, ret = syscall(SYS_ptrace, req, pid, addr, &word);
		if (ret < 0)
			return ret;
		errno = 0;
		return word;
	}
	return syscall(SYS_ptrace, req, pid, addr, data);
}
