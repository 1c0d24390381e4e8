//! Generated from `wit/`. Everything the guest calls may stop it: that is how limits on host calls take effect.

#![allow(
    missing_docs,
    unreachable_pub,
    reason = "generated code; the contract documents every item"
)]

wasmtime::component::bindgen!({
    world: "update-adapter",
    path: "../../wit",
    imports: { default: trappable },
});
