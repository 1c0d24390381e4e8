//! The HTTP listener against callers who are right, wrong, slow, greedy, hostile or gone.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "http_server/answers.rs"]
mod answers;
#[path = "http_server/calls.rs"]
mod calls;
#[path = "http_server/hostile.rs"]
mod hostile;
#[path = "http_server/life.rs"]
mod life;
#[path = "http_server/limits.rs"]
mod limits;
#[path = "http_server/nginx.rs"]
mod nginx;
#[path = "http_server/support.rs"]
mod support;
#[path = "http_server/tls.rs"]
mod tls;
