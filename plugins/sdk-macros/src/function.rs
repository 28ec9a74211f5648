//! From the function of one row to the plugin.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Error, FnArg, Ident, ItemFn, Result, ReturnType, Type};

use crate::arguments::Arguments;

const FORMS: &str = "a plugin of rows is `fn(row: Row) -> bool`, `fn(row: Row) -> Decision` or `fn(row: &mut RowMut)`, \
                     each with `config: &Config` and `context: &Context` behind it if it needs them";

/// What a further parameter is.
enum Further {
    Context,
    State { mutable: bool },
}

pub(crate) fn plugin(arguments: &Arguments, function: &ItemFn) -> Result<TokenStream> {
    let Some(kind) = &arguments.kind else {
        let what = "the kind is missing: `kind = filter` (or sample, enrich, mask)";
        return Err(Error::new(Span::call_site(), what));
    };
    let signature = &function.sig;
    if let Some(token) = &signature.asyncness {
        return Err(Error::new_spanned(token, "a plugin is not async"));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &signature.generics,
            "a plugin has no generic parameters",
        ));
    }
    let mut parameters = signature.inputs.iter();
    let Some(first) = parameters.next() else {
        return Err(Error::new_spanned(signature, FORMS));
    };
    let changes = match parameter(first)? {
        Type::Reference(reference) if reference.mutability.is_some() && last_name(&reference.elem) == "RowMut" => true,
        row if last_name(row) == "Row" => false,
        other => return Err(Error::new_spanned(other, FORMS)),
    };
    match (&signature.output, changes) {
        (ReturnType::Default, false) => {
            return Err(Error::new_spanned(
                signature,
                "what becomes of the row? `-> bool` or `-> Decision`",
            ));
        }
        (ReturnType::Type(_, answer), true) => {
            return Err(Error::new_spanned(
                answer,
                "a function that changes rows answers nothing; `row.drop(\"reason\")` drops one",
            ));
        }
        (ReturnType::Default, true) | (ReturnType::Type(..), false) => {}
    }
    let (further, state) = further(parameters)?;
    let (state, config) = state_and_config(arguments, state)?;
    let initial = match &arguments.init {
        Some(init) => quote!(#init(config)?),
        None => quote!(config),
    };

    let row_function = &signature.ident;
    let plugin = Ident::new(&camel_case(&row_function.to_string()), row_function.span());
    let name = match &arguments.name {
        Some(name) => quote!(#name),
        None => {
            let name = row_function.to_string().replace('_', "-");
            quote!(#name)
        }
    };
    let version = match &arguments.version {
        Some(version) => quote!(#version),
        None => quote!(::std::env!("CARGO_PKG_VERSION")),
    };
    let (reads, writes) = (&arguments.reads, &arguments.writes);
    let names = |names: &[syn::Expr]| quote!([#(#names),*] as [&str; _]);
    let all_reads = names(&[&reads[..], &writes[..]].concat());
    let writes = names(writes);
    let given = further.iter().map(|further| match further {
        Further::Context => quote!(context),
        Further::State { mutable: true } => quote!(&mut self.state),
        Further::State { mutable: false } => quote!(&self.state),
    });
    let process = if changes {
        quote! {
            ::sluice_plugin::row::change(batch, &self.reads, &self.writes, |row| #row_function(row, #(#given),*))
        }
    } else {
        quote!(::sluice_plugin::row::filter(batch, &self.reads, |row| #row_function(row, #(#given),*)))
    };
    let visibility = &function.vis;
    let doc = format!("The plugin of the rows' function `{row_function}`.");
    Ok(quote! {
        #[allow(elided_lifetimes_in_paths, clippy::needless_pass_by_value)]
        #function

        #[doc = #doc]
        #visibility struct #plugin {
            #[allow(dead_code)]
            state: #state,
            reads: ::std::vec::Vec<::std::string::String>,
            writes: ::std::vec::Vec<::std::string::String>,
        }

        impl ::sluice_plugin::Plugin for #plugin {
            type Config = #config;

            fn describe() -> ::sluice_plugin::Description {
                ::sluice_plugin::Description::new(#name, #version, ::sluice_plugin::Kind::#kind)
                    .reads(#all_reads)
                    .writes(#writes)
            }

            fn init(config: #config) -> ::std::result::Result<Self, ::std::string::String> {
                let description = <Self as ::sluice_plugin::Plugin>::describe();
                ::std::result::Result::Ok(#plugin {
                    state: #initial,
                    reads: description.reads,
                    writes: description.writes,
                })
            }

            #[allow(unused_variables)]
            fn process(
                &mut self,
                batch: &::sluice_plugin::Batch,
                context: &::sluice_plugin::Context,
            ) -> ::std::result::Result<::sluice_plugin::Outcome, ::std::string::String> {
                #process
            }
        }

        ::sluice_plugin::export_plugin!(#plugin);
    })
}

fn parameter(argument: &FnArg) -> Result<&Type> {
    match argument {
        FnArg::Typed(typed) => Ok(&typed.ty),
        FnArg::Receiver(receiver) => Err(Error::new_spanned(receiver, FORMS)),
    }
}

/// The parameters after the row, and the type of the state among them.
fn further<'a>(parameters: impl Iterator<Item = &'a FnArg>) -> Result<(Vec<Further>, Option<&'a Type>)> {
    let mut further = Vec::new();
    let mut state: Option<&Type> = None;
    for argument in parameters {
        let Type::Reference(reference) = parameter(argument)? else {
            return Err(Error::new_spanned(
                argument,
                "write `config: &Config` or `context: &Context`",
            ));
        };
        if last_name(&reference.elem) == "Context" {
            further.push(Further::Context);
        } else if state.is_some() {
            return Err(Error::new_spanned(argument, FORMS));
        } else {
            state = Some(&reference.elem);
            further.push(Further::State {
                mutable: reference.mutability.is_some(),
            });
        }
    }
    Ok((further, state))
}

/// The types of the state and of the configuration.
fn state_and_config(arguments: &Arguments, state: Option<&Type>) -> Result<(TokenStream, TokenStream)> {
    match (&arguments.init, &arguments.config, state) {
        (Some(init), None, _) => Err(Error::new_spanned(
            init,
            "say which type `init` takes: `init = prepare, config = Config`",
        )),
        (Some(init), Some(_), None) => Err(Error::new_spanned(
            init,
            "nothing takes what `init` makes: add a parameter `state: &State` to the function",
        )),
        (Some(_), Some(config), Some(state)) => Ok((quote!(#state), quote!(#config))),
        (None, Some(config), Some(state)) if quote!(#config).to_string() != quote!(#state).to_string() => {
            Err(Error::new_spanned(
                state,
                "without `init` this parameter is the configuration, of the type that `config` says",
            ))
        }
        (None, Some(config), _) => Ok((quote!(#config), quote!(#config))),
        (None, None, Some(state)) => Ok((quote!(#state), quote!(#state))),
        (None, None, None) => Ok((quote!(::sluice_plugin::NoConfig), quote!(::sluice_plugin::NoConfig))),
    }
}

/// The last name of a path type; empty for other types.
fn last_name(ty: &Type) -> String {
    match ty {
        Type::Path(path) => path
            .path
            .segments
            .last()
            .map(|s| s.ident.to_string())
            .unwrap_or_default(),
        _ => String::new(),
    }
}

fn camel_case(name: &str) -> String {
    name.split('_')
        .filter_map(|word| {
            let mut letters = word.chars();
            let first = letters.next()?;
            Some(first.to_uppercase().chain(letters).collect::<String>())
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn error_of(arguments: &str, function: &str) -> String {
        let function: ItemFn = syn::parse_str(function).unwrap();
        let made = syn::parse_str::<Arguments>(arguments).and_then(|arguments| plugin(&arguments, &function));
        made.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn mistakes_are_told_with_what_to_write_instead() {
        let filter = "fn keep(row: Row) -> bool { true }";
        let check = |arguments: &str, function: &str, expected: &str| {
            let error = error_of(arguments, function);
            assert!(error.contains(expected), "{arguments}, {function}: {error}");
            assert!(!error.is_empty());
        };
        check("", filter, "`kind = filter`");
        check("kind = filtr", filter, "`filtr` is no kind; write filter,");
        check(
            "kind = filter, read = []",
            filter,
            "`read` is not known; known are: name,",
        );
        check("kind = filter, kind = mask", filter, "`kind` is given twice");
        check("kind = filter, reads = [1]", filter, "is a text such as \"severity\"");
        check("kind = filter, reads = [\"\"]", filter, "is a text such as");
        check(
            "kind = filter, init = prepare",
            filter,
            "`init = prepare, config = Config`",
        );
        check(
            "kind = filter, init = prepare, config = C",
            filter,
            "add a parameter `state: &State`",
        );
        check("kind = filter", "fn keep() -> bool { true }", "fn(row: Row) -> bool");
        check(
            "kind = filter",
            "fn keep(row: &Row) -> bool { true }",
            "fn(row: Row) -> bool",
        );
        check("kind = filter", "fn keep(row: Row) {}", "what becomes of the row?");
        check(
            "kind = enrich",
            "fn set(row: &mut RowMut) -> bool { true }",
            "answers nothing",
        );
        check(
            "kind = filter",
            "fn keep(row: Row, c: Config) -> bool { true }",
            "`config: &Config`",
        );
        check(
            "kind = filter",
            "fn keep(row: Row, a: &A, b: &B) -> bool { true }",
            "fn(row: Row) -> bool",
        );
        check(
            "kind = filter, config = A",
            "fn keep(row: Row, b: &B) -> bool { true }",
            "this parameter is the",
        );
        check("kind = filter", "async fn keep(row: Row) -> bool { true }", "not async");
        check(
            "kind = filter",
            "fn keep<T>(row: Row) -> bool { true }",
            "no generic parameters",
        );
    }

    #[test]
    fn the_plugin_is_named_as_the_function() {
        assert_eq!(camel_case("drop_health_checks"), "DropHealthChecks");
        let right = error_of(
            "name = \"x\", kind = sample, reads = [\"a\", NAME], writes = []",
            "fn f(row: Row, context: &Context, state: &mut Config) -> Decision { x }",
        );
        assert_eq!(right, "");
    }
}
