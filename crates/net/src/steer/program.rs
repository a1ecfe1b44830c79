//! The program that the kernel runs for each new connection, assembled by hand. Pure.
//!
//! In words: TCP, to the address if there is one, to a port whose bit is set? Then give it to the socket. It always
//! says "go on": where no socket was given, the kernel looks for a listener as if there were no program.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// As the kernel takes them, 8 bytes each.
pub(super) type Instruction = u64;

// Offsets in `struct bpf_sk_lookup`.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: i16 = 44;
const LOCAL_PORT: i16 = 60;

// Opcodes.
const LOAD_32: u8 = 0x61;
const LOAD_8: u8 = 0x71;
const STORE_32: u8 = 0x62;
const LOAD_IMMEDIATE_64: u8 = 0x18;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const ADD: u8 = 0x07;
const ADD_REGISTER: u8 = 0x0f;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const SHIFT_RIGHT_REGISTER: u8 = 0x7f;
const JUMP_IF_EQUAL: u8 = 0x15;
/// Compares 32 bits, so that the immediate is not extended by its sign.
const JUMP_IF_NOT_EQUAL_32: u8 = 0x56;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

// What a wide immediate means.
const MAP: u8 = 1;
const MAP_VALUE: u8 = 2;

// Helper functions.
const MAP_LOOKUP_ELEM: i32 = 1;
const SK_RELEASE: i32 = 86;
const SK_ASSIGN: i32 = 124;

const SK_PASS: i32 = 1;

/// The program for two maps: the socket, and the bits of the ports.
pub(super) fn assemble(
    address: Option<IpAddr>,
    sockets: BorrowedFd<'_>,
    ports: BorrowedFd<'_>,
) -> Vec<Instruction> {
    let mut p = Assembler::default();
    p.op(LOAD_32, 2, 1, PROTOCOL, 0);
    p.leave_unless_equal(2, libc::IPPROTO_TCP);
    if let Some(address) = address {
        p.leave_unless_to(address);
    }
    // r4: the byte with the port's bit; r2: which bit of it.
    p.op(LOAD_32, 2, 1, LOCAL_PORT, 0);
    p.op(AND, 2, 0, 0, 0xFFFF);
    p.op(MOVE_REGISTER, 3, 2, 0, 0);
    p.op(SHIFT_RIGHT, 3, 0, 0, 3);
    p.wide(4, MAP_VALUE, ports.as_raw_fd());
    p.op(ADD_REGISTER, 4, 3, 0, 0);
    p.op(LOAD_8, 4, 4, 0, 0);
    p.op(AND, 2, 0, 0, 7);
    p.op(SHIFT_RIGHT_REGISTER, 4, 2, 0, 0);
    p.op(AND, 4, 0, 0, 1);
    p.leave(JUMP_IF_EQUAL, 4, 0);
    // r6: the context; r7: the socket.
    p.op(MOVE_REGISTER, 6, 1, 0, 0);
    p.op(STORE_32, 10, 0, -4, 0);
    p.op(MOVE_REGISTER, 2, 10, 0, 0);
    p.op(ADD, 2, 0, 0, -4);
    p.wide(1, MAP, sockets.as_raw_fd());
    p.op(CALL, 0, 0, 0, MAP_LOOKUP_ELEM);
    p.leave(JUMP_IF_EQUAL, 0, 0);
    p.op(MOVE_REGISTER, 7, 0, 0, 0);
    p.op(MOVE_REGISTER, 1, 6, 0, 0);
    p.op(MOVE_REGISTER, 2, 7, 0, 0);
    p.op(MOVE, 3, 0, 0, 0);
    p.op(CALL, 0, 0, 0, SK_ASSIGN);
    p.op(MOVE_REGISTER, 1, 7, 0, 0);
    p.op(CALL, 0, 0, 0, SK_RELEASE);
    p.finish()
}

/// Instructions so far, and which of them jump to the end.
#[derive(Default)]
struct Assembler {
    code: Vec<Instruction>,
    leaving: Vec<usize>,
}

impl Assembler {
    fn op(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.code.push(encode(code, to, from, offset, immediate));
    }

    /// A map, or its only value, by the map's descriptor.
    fn wide(&mut self, to: u8, meaning: u8, map: i32) {
        self.op(LOAD_IMMEDIATE_64, to, meaning, 0, map);
        self.op(0, 0, 0, 0, 0);
    }

    /// A jump to the end.
    fn leave(&mut self, jump: u8, register: u8, immediate: i32) {
        self.leaving.push(self.code.len());
        self.op(jump, register, 0, 0, immediate);
    }

    fn leave_unless_equal(&mut self, register: u8, immediate: i32) {
        self.leave(JUMP_IF_NOT_EQUAL_32, register, immediate);
    }

    fn leave_unless_to(&mut self, address: IpAddr) {
        self.op(LOAD_32, 2, 1, FAMILY, 0);
        // As they lie in memory: in network byte order.
        let word = |bytes: &[u8]| {
            i32::from_ne_bytes(*bytes.first_chunk().unwrap_or(&[0; size_of::<i32>()]))
        };
        match address {
            IpAddr::V4(ip) => {
                self.leave_unless_equal(2, libc::AF_INET);
                self.op(LOAD_32, 2, 1, LOCAL_IP4, 0);
                self.leave_unless_equal(2, word(&ip.octets()));
            }
            IpAddr::V6(ip) => {
                self.leave_unless_equal(2, libc::AF_INET6);
                let octets = ip.octets();
                for (offset, part) in (LOCAL_IP6..).step_by(4).zip(octets.chunks_exact(4)) {
                    self.op(LOAD_32, 2, 1, offset, 0);
                    self.leave_unless_equal(2, word(part));
                }
            }
        }
    }

    fn finish(mut self) -> Vec<Instruction> {
        let end = self.code.len();
        for at in self.leaving {
            // Far below 32,768 instructions.
            let distance = (end - at - 1) as u64;
            self.code[at] |= distance << OFFSET_SHIFT;
        }
        self.code.push(encode(MOVE, 0, 0, 0, SK_PASS));
        self.code.push(encode(EXIT, 0, 0, 0, 0));
        self.code
    }
}

#[cfg(target_endian = "little")]
const OFFSET_SHIFT: u32 = 16;
#[cfg(target_endian = "big")]
const OFFSET_SHIFT: u32 = 32;

/// `struct bpf_insn`: code, two registers of four bits, offset, immediate.
fn encode(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
    let [o0, o1] = offset.to_ne_bytes();
    let [i0, i1, i2, i3] = immediate.to_ne_bytes();
    Instruction::from_ne_bytes([code, registers, o0, o1, i0, i1, i2, i3])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn jumps_end_where_the_last_two_instructions_begin() {
        let stdin = std::io::stdin();
        let fd = stdin.as_fd();
        for (address, length) in [(None, 31), (Some("10.0.0.1"), 35), (Some("fd00::1"), 41)] {
            let code = assemble(address.map(|a| a.parse().unwrap()), fd, fd);
            assert_eq!(code.len(), length, "{address:?}");
            for (at, instruction) in code.iter().enumerate() {
                let bytes = instruction.to_ne_bytes();
                if matches!(bytes[0], JUMP_IF_EQUAL | JUMP_IF_NOT_EQUAL_32) {
                    let offset = usize::from(u16::from_ne_bytes([bytes[2], bytes[3]]));
                    assert_eq!(at + 1 + offset, length - 2);
                }
            }
        }
    }
}
