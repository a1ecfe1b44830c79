//! The gateway through its front door: the real program, raw bytes in, raw bytes at the upstream.
//!
//! One binary so that it links once; one module per concern. Every test starts its own program on free
//! ports, so that all can run side by side. Start at [`support`].

mod support;
mod nanoproxy;
mod running;
mod smuggling;
