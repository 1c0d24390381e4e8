//! The bindings generated from the contract. Only this crate sees them: authors meet the types through the crate root
//! and the functions through [`View`](crate::View) and [`Adapter`](crate::Adapter).

// The generated text allows nothing for itself; these are its reasons, and they hold for nothing else in the crate.
#![allow(
    unsafe_code,
    reason = "the canonical ABI passes pointers; the code is generated"
)]
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; what an author meets is documented in the contract"
)]
#![allow(clippy::all, reason = "generated")]

wit_bindgen::generate!({
    world: "update-adapter",
    path: "../../wit",
    additional_derives: [PartialEq, Eq, Clone],
    pub_export_macro: true,
});
