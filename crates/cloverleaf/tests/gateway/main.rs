//! The gateway through its front door: the real program, raw bytes in, raw bytes at the upstream.
//!
//! One binary so that it links once; one module per concern. Every test starts its own program on free
//! ports, so that all can run side by side. Start at [`support`].

mod support;
mod cli;
mod nanoproxy;
mod observe;
mod reload;
mod running;
mod shutdown;
mod tls;
mod h2;
mod hostile;
mod protocol;
mod smuggling;
mod streams;
mod upstream_failure;
