//! The macros of `sluice-plugin`: a function of one row becomes a plugin, a struct becomes a configuration.

mod arguments;
mod function;

use proc_macro::TokenStream;
use quote::quote;
use syn::{Item, parse_macro_input};

use crate::arguments::Arguments;

/// Makes a plugin of a function of one row.
///
/// ```text
/// #[sluice_plugin(kind = filter, reads = ["severity", "service"])]
/// fn keep(row: Row) -> bool { … }                        // or -> Decision
///
/// #[sluice_plugin(kind = enrich, reads = ["attrs.region"], writes = ["attrs.zone"])]
/// fn zone(row: &mut RowMut) { … }
/// ```
///
/// | argument | meaning | default |
/// |---|---|---|
/// | `kind` | `filter`, `sample`, `enrich` or `mask`; decides what a failure means: a mask fails closed | needed |
/// | `reads` | names of the columns that rows may ask for | none |
/// | `writes` | names of the columns that rows may set; they can be read, too | none |
/// | `name` | the plugin's | the function's, with `-` for `_` |
/// | `version` | the plugin's | `env!("CARGO_PKG_VERSION")` |
/// | `init` | `fn(Config) -> Result<State, String>`, once per instance; needs `config` | the state is the configuration |
/// | `config` | type of the configuration | that of the second parameter, or none |
///
/// Further parameters, in any order: `&Config` (with `init`: `&State` or `&mut State`) and `&Context`. The plugin is a type named as the
/// function in camel case (`Keep`), for tests.
#[proc_macro_attribute]
pub fn sluice_plugin(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments as Arguments);
    let function = match syn::parse::<Item>(item) {
        Ok(Item::Fn(function)) => function,
        Ok(other) => {
            return syn::Error::new_spanned(
                other,
                "#[sluice_plugin] belongs on a function: `fn keep(row: Row) -> bool`",
            )
            .into_compile_error()
            .into();
        }
        Err(e) => return e.into_compile_error().into(),
    };
    match function::plugin(&arguments, &function) {
        Ok(plugin) => plugin.into(),
        // The function itself stays, so that only the real mistake is told.
        Err(e) => {
            let error = e.into_compile_error();
            quote!(#[allow(dead_code, elided_lifetimes_in_paths)] #function #error).into()
        }
    }
}

/// Makes a configuration of a struct: read from JSON with unknown keys refused, and with a JSON Schema, in which the comments
/// of the fields are their descriptions. Give fields that may be left out `#[serde(default)]` or make them an `Option`.
///
/// Nested structs and enums need `#[plugin_config]` as well.
#[proc_macro_attribute]
pub fn plugin_config(arguments: TokenStream, item: TokenStream) -> TokenStream {
    if !arguments.is_empty() {
        let error = syn::Error::new(proc_macro2::Span::call_site(), "#[plugin_config] has no arguments");
        return error.into_compile_error().into();
    }
    let item = parse_macro_input!(item as Item);
    let derive = quote! {
        #[derive(
            Clone,
            Debug,
            ::sluice_plugin::serde::Serialize,
            ::sluice_plugin::serde::Deserialize,
            ::sluice_plugin::schemars::JsonSchema,
        )]
        #[serde(crate = "::sluice_plugin::serde")]
        #[schemars(crate = "::sluice_plugin::schemars")]
    };
    match item {
        Item::Struct(item) => quote!(#derive #[serde(deny_unknown_fields)] #item).into(),
        Item::Enum(item) => quote!(#derive #[serde(rename_all = "snake_case", deny_unknown_fields)] #item).into(),
        other => syn::Error::new_spanned(other, "#[plugin_config] belongs on a struct or an enum")
            .into_compile_error()
            .into(),
    }
}
