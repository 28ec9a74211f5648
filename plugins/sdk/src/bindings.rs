//! What `wit-bindgen` makes of the contract.
#![allow(unsafe_code, unreachable_pub, missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "transform",
    pub_export_macro: true,
    export_macro_name: "export_transform",
    default_bindings_module: "sluice_plugin::bindings",
    runtime_path: "sluice_plugin::wit_bindgen::rt",
});
