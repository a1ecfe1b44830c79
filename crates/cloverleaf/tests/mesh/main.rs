//! The role `mesh` through its front door: hosts in network namespaces of their own, pods that say which they are, and
//! the original proxy's bytes written out. Needs root. Start at [`support`].

mod beside;
mod clients;
mod kept;
mod leaks;
mod peers;
mod reload;
mod security;
mod security_hostile;
mod standing_in;
mod steering;
mod support;
mod tunnelled;
