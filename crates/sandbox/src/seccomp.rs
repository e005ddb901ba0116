//! The seccomp filter of a step: a list of system calls that it does not get, as a BPF program.
//!
//! A list of what is denied and not of what is allowed: distributions' tools use most of what Linux has, and new calls should not
//! stop them. What keeps a step in its copy are the namespaces and the capabilities it lacks; the filter takes away the parts of the
//! kernel that are not needed to build an image and that were the way out of user namespaces most often. Calls
//! that are newer than this list are denied as if the kernel did not know them.

use libc::c_long;

/// Denied with `EPERM`.
const DENIED: &[c_long] = &[
    // Mounts and namespaces: with them a step would have capabilities over things of its own making.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Kernel memory, programs and keys.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // The machine.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
    SYS_QUOTACTL_FD,
    SYS_OPEN_TREE_ATTR,
    SYS_LSM_SET_SELF_ATTR,
];

/// Those that the two processors number differently, or only one of them has.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[c_long] = &[
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS__sysctl,
    libc::SYS_sysfs,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[c_long] = &[];

// These have one number on every processor, but not a name in every version of the C library.
const SYS_QUOTACTL_FD: c_long = 443;
const SYS_LSM_SET_SELF_ATTR: c_long = 460;
const SYS_OPEN_TREE_ATTR: c_long = 467;

/// The last call that this list was made with: `file_setattr` of Linux 6.17.
const LAST_KNOWN: u32 = 469;

/// Changing owners, where there is only one: seems to work.
#[cfg(target_arch = "x86_64")]
const OWNERS: &[c_long] = &[
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setgroups,
];
#[cfg(not(target_arch = "x86_64"))]
const OWNERS: &[c_long] = &[libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_setgroups];

/// `AUDIT_ARCH_*` of `linux/audit.h`: the ELF machine, 64-bit, little-endian.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;
#[cfg(target_arch = "riscv64")]
const ARCH: u32 = 0xc000_00f3;

const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const ALLOW: u32 = 0x7fff_0000;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH_AT: u32 = 4;
const ARG0: u32 = 16;
const ARG1: u32 = 24;

/// Bits of `clone`'s flags that make namespaces: mount, cgroup, uts, ipc, user, pid, net; and time.
const NEW_NAMESPACES: u32 = 0x7e02_0000 | 0x80;

/// One instruction, as `struct sock_filter`.
pub(crate) type Instruction = libc::sock_filter;

const fn load(offset: u32) -> Instruction {
    Instruction {
        code: 0x20, // BPF_LD | BPF_W | BPF_ABS
        jt: 0,
        jf: 0,
        k: offset,
    }
}

const fn ret(k: u32) -> Instruction {
    Instruction {
        code: 0x06, // BPF_RET | BPF_K
        jt: 0,
        jf: 0,
        k,
    }
}

const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const ABOVE: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const ANY_OF: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K

/// Answers `k2` where the value compares so to `k`, and goes on else.
fn answer_if(program: &mut Vec<Instruction>, compare: u16, k: u32, answer: u32) {
    program.push(Instruction {
        code: compare,
        jt: 0,
        jf: 1,
        k,
    });
    program.push(ret(answer));
}

fn number(call: c_long) -> u32 {
    u32::try_from(call).expect("system calls have small numbers")
}

/// The program. `single`: there is one owner.
pub(crate) fn program(single: bool) -> Vec<Instruction> {
    let errno = |error: libc::c_int| ERRNO | u32::try_from(error).expect("errors are positive");
    let (denied, unknown) = (errno(libc::EPERM), errno(libc::ENOSYS));
    let mut program = vec![load(ARCH_AT)];
    // Another processor's numbers mean other calls.
    program.push(Instruction {
        code: EQUAL,
        jt: 1,
        jf: 0,
        k: ARCH,
    });
    program.push(ret(KILL_PROCESS));
    program.push(load(NR));
    // That includes the x32 calls of x86_64, whose numbers start at 2^30.
    answer_if(&mut program, ABOVE, LAST_KNOWN, unknown);
    // Its flags lie in memory, where a filter cannot look; C libraries then use `clone`.
    answer_if(&mut program, EQUAL, number(libc::SYS_clone3), unknown);
    if single {
        for &call in OWNERS {
            answer_if(&mut program, EQUAL, number(call), ERRNO);
        }
    }
    for &call in DENIED.iter().chain(DENIED_HERE) {
        answer_if(&mut program, EQUAL, number(call), denied);
    }
    let not = |k: u32| Instruction {
        code: EQUAL,
        jt: 0,
        jf: 3,
        k,
    };
    // clone with flags for a namespace.
    program.push(not(number(libc::SYS_clone)));
    program.push(load(ARG0));
    answer_if(&mut program, ANY_OF, NEW_NAMESPACES, denied);
    program.push(load(NR));
    // ioctl that types into a terminal.
    for request in [libc::TIOCSTI, libc::TIOCLINUX] {
        program.push(not(number(libc::SYS_ioctl)));
        program.push(load(ARG1));
        answer_if(
            &mut program,
            EQUAL,
            u32::try_from(request).unwrap_or(u32::MAX),
            denied,
        );
        program.push(load(NR));
    }
    program.push(ret(ALLOW));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer.
    fn run(program: &[Instruction], arch: u32, nr: u32, args: [u64; 2]) -> u32 {
        let mut data = [0; 64];
        data[0..4].copy_from_slice(&nr.to_le_bytes());
        data[4..8].copy_from_slice(&arch.to_le_bytes());
        data[16..24].copy_from_slice(&args[0].to_le_bytes());
        data[24..32].copy_from_slice(&args[1].to_le_bytes());
        let (mut at, mut value) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let taken = match code {
                0x20 => {
                    let offset = usize::try_from(k).unwrap();
                    value = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
                    continue;
                }
                0x06 => return k,
                EQUAL => value == k,
                ABOVE => value > k,
                ANY_OF => value & k != 0,
                other => panic!("{other:#x}"),
            };
            at += usize::from(if taken { jt } else { jf });
        }
    }

    #[test]
    fn calls_are_answered_as_listed() {
        let plain = program(false);
        let single = program(true);
        let ask = |program, call, args| run(program, ARCH, number(call), args);
        let (denied, unknown) = (ERRNO | libc::EPERM as u32, ERRNO | libc::ENOSYS as u32);
        for program in [&plain, &single] {
            for &call in DENIED.iter().chain(DENIED_HERE) {
                assert_eq!(ask(program, call, [0, 0]), denied, "{call}");
            }
            for call in [
                libc::SYS_read,
                libc::SYS_execve,
                libc::SYS_chroot,
                libc::SYS_wait4,
                libc::SYS_openat2,
            ] {
                assert_eq!(ask(program, call, [u64::MAX, 0]), ALLOW, "{call}");
            }
            let flags = |flags: libc::c_int| u64::try_from(flags).unwrap();
            assert_eq!(ask(program, libc::SYS_clone, [flags(libc::SIGCHLD), 0]), ALLOW);
            let thread = libc::CLONE_VM
                | libc::CLONE_FS
                | libc::CLONE_FILES
                | libc::CLONE_SIGHAND
                | libc::CLONE_THREAD;
            assert_eq!(ask(program, libc::SYS_clone, [flags(thread), 0]), ALLOW);
            for space in [
                libc::CLONE_NEWUSER,
                libc::CLONE_NEWNS,
                libc::CLONE_NEWPID,
                libc::CLONE_NEWNET,
                libc::CLONE_NEWCGROUP,
                libc::CLONE_NEWIPC,
                libc::CLONE_NEWUTS,
                0x80,
            ] {
                assert_eq!(
                    ask(program, libc::SYS_clone, [flags(space | libc::SIGCHLD), 0]),
                    denied
                );
            }
            assert_eq!(ask(program, libc::SYS_clone3, [0, 0]), unknown);
            assert_eq!(
                ask(program, libc::SYS_ioctl, [0, u64::from(libc::TIOCSTI as u32)]),
                denied
            );
            assert_eq!(
                ask(program, libc::SYS_ioctl, [0, u64::from(libc::TIOCLINUX as u32)]),
                denied
            );
            assert_eq!(
                ask(program, libc::SYS_ioctl, [0, u64::from(libc::TCGETS as u32)]),
                ALLOW
            );
            assert_eq!(
                run(program, ARCH, 0x4000_0000 | number(libc::SYS_mount), [0, 0]),
                unknown
            );
            assert_eq!(run(program, ARCH, LAST_KNOWN + 1, [0, 0]), unknown);
            assert_eq!(
                run(program, 0x4000_0003, number(libc::SYS_read), [0, 0]),
                KILL_PROCESS
            );
        }
        for &call in OWNERS {
            assert_eq!(ask(&single, call, [0, 0]), ERRNO, "{call}");
            assert_eq!(ask(&plain, call, [0, 0]), ALLOW, "{call}");
        }
    }
}
