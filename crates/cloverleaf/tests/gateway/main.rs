//! The gateway through its front door: the real program, raw bytes in, raw bytes at the upstream.
//!
//! One binary so that it links once; one module per concern. Every test starts its own program on free
//! ports, so that all can run side by side. Start at [`support`], and at
//! [`running`] for what is about running it.

mod actions;
mod cli;
mod client_certificates;
mod dialling;
mod h2;
mod health;
mod hostile;
mod nanoproxy;
mod observe;
mod protocol;
mod redirects;
mod reload;
mod running;
mod shutdown;
mod smuggling;
mod streams;
mod support;
mod tls;
mod upstream_failure;
