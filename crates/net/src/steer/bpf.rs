//! `bpf(2)`: the five calls that steering needs. Must not know what the program does.

#![allow(unsafe_code, reason = "no safe crate has this system call")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;

const PROG_TYPE_SK_LOOKUP: u32 = 30;
const ATTACH_SK_LOOKUP: u32 = 36;
/// Of the verifier's complaint.
const LOG_BYTES: usize = 16 * 1024;
const LOG_SHOWN_BYTES: usize = 200;

/// `union bpf_attr`, longer than the parts in use; the rest must be 0.
#[derive(Debug)]
struct Attributes([u32; 32]);

impl Attributes {
    fn new() -> Self {
        Self([0; 32])
    }

    /// Sets 32 bits at an offset in bytes.
    fn set(mut self, offset: usize, value: u32) -> Self {
        self.0[offset / 4] = value;
        self
    }

    /// Sets a descriptor.
    fn fd(self, offset: usize, fd: BorrowedFd<'_>) -> Self {
        // Descriptors are not negative.
        self.set(offset, fd.as_raw_fd() as u32)
    }

    /// Sets 64 bits: where something lies in memory. What lies there must live until [`call`] returns.
    fn address<T: ?Sized>(mut self, offset: usize, of: *const T) -> Self {
        let bytes = (of.cast::<u8>() as u64).to_ne_bytes();
        let [a, b, c, d, e, f, g, h] = bytes;
        self.0[offset / 4] = u32::from_ne_bytes([a, b, c, d]);
        self.0[offset / 4 + 1] = u32::from_ne_bytes([e, f, g, h]);
        self
    }
}

/// # Safety
/// Every address in `attributes` must be that of memory as long as the command takes it to be, alive during the call;
/// memory that the kernel writes to (a log) must be borrowed as mutable.
unsafe fn call(command: libc::c_int, attributes: &Attributes) -> io::Result<libc::c_long> {
    let size = size_of::<[u32; 32]>();
    // SAFETY: the kernel reads `size` bytes at the given address, which are there; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.0.as_ptr(), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A map with one entry, under the key 0.
#[derive(Debug)]
pub(super) struct Map {
    fd: OwnedFd,
    value_bytes: usize,
}

impl Map {
    /// A map whose value is an array of bytes.
    pub(super) fn of_bytes(value_bytes: u32) -> io::Result<Self> {
        const ARRAY: u32 = 2;
        Self::create(ARRAY, value_bytes)
    }

    /// A map whose value is a listening socket.
    pub(super) fn of_sockets() -> io::Result<Self> {
        const SOCKMAP: u32 = 15;
        Self::create(SOCKMAP, 8)
    }

    fn create(kind: u32, value_bytes: u32) -> io::Result<Self> {
        let attributes = Attributes::new().set(0, kind).set(4, 4).set(8, value_bytes).set(12, 1);
        // SAFETY: no address is in it.
        let fd = owned(unsafe { call(MAP_CREATE, &attributes) }?)?;
        Ok(Self { fd, value_bytes: value_bytes as usize })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Puts a listening socket in.
    pub(super) fn set_socket(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let fd = u64::try_from(socket.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.set(&fd.to_ne_bytes())
    }

    /// Sets the value, which must be as long as the map's values are.
    pub(super) fn set(&self, value: &[u8]) -> io::Result<()> {
        if value.len() != self.value_bytes {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let key = 0_u32;
        let attributes = Attributes::new()
            .fd(0, self.fd())
            .address(8, &raw const key)
            .address(16, value.as_ptr());
        // SAFETY: the key has 4 bytes, as in every map made here, and the value as many as the map was made with.
        // Both live until the end of this function.
        unsafe { call(MAP_UPDATE_ELEM, &attributes) }.map(|_| ())
    }
}

/// Has the kernel verify and load a program of type `sk_lookup`.
pub(super) fn load(program: &[u64]) -> io::Result<OwnedFd> {
    let license = CString::from(c"Apache-2.0");
    let count = u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let attributes = || {
        Attributes::new()
            .set(0, PROG_TYPE_SK_LOOKUP)
            .set(4, count)
            .address(8, program.as_ptr())
            .address(16, license.as_ptr())
            .set(68, ATTACH_SK_LOOKUP)
    };
    // SAFETY: `count` instructions of 8 bytes lie at the first address, a text that ends in 0 at the second; both are
    // borrowed until after the call.
    let error = match unsafe { call(PROG_LOAD, &attributes()) } {
        Ok(fd) => return owned(fd),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
        Err(error) => error,
    };
    // Once more, for the verifier's reason.
    let mut log = vec![0_u8; LOG_BYTES];
    let with_log = attributes().set(24, 1).set(28, LOG_BYTES as u32).address(32, log.as_mut_ptr());
    // SAFETY: as above; the kernel may write LOG_BYTES bytes to `log`, which has them and is borrowed as mutable.
    match unsafe { call(PROG_LOAD, &with_log) } {
        Ok(fd) => owned(fd),
        Err(_) => {
            let log: Vec<u8> = log.into_iter().take_while(|b| *b != 0).collect();
            let log = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_SHOWN_BYTES)..])
                .trim()
                .replace('\n', "; ");
            Err(io::Error::new(error.kind(), format!("{error}: {log}")))
        }
    }
}

/// Attaches a program to a network namespace, until what is returned is closed.
pub(super) fn attach(program: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attributes = Attributes::new().fd(0, program).fd(4, namespace).set(8, ATTACH_SK_LOOKUP);
    // SAFETY: no address is in it.
    owned(unsafe { call(LINK_CREATE, &attributes) }?)
}
