//! The arguments of `#[sluice_plugin(…)]`.

use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, ExprLit, Ident, Lit, Path, Result, Token, Type};

/// What may be said, each once.
#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) name: Option<Expr>,
    pub(crate) version: Option<Expr>,
    pub(crate) kind: Option<Ident>,
    pub(crate) reads: Vec<Expr>,
    pub(crate) writes: Vec<Expr>,
    pub(crate) init: Option<Path>,
    pub(crate) config: Option<Type>,
}

const KNOWN: &str = "known are: name, version, kind, reads, writes, init, config";

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arguments = Arguments::default();
        let mut seen: Vec<String> = Vec::new();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            let name = key.to_string();
            if seen.contains(&name) {
                return Err(Error::new(key.span(), format!("`{name}` is given twice")));
            }
            input.parse::<Token![=]>()?;
            match name.as_str() {
                "name" => arguments.name = Some(input.parse()?),
                "version" => arguments.version = Some(input.parse()?),
                "kind" => arguments.kind = Some(kind(input)?),
                "reads" => arguments.reads = columns(input)?,
                "writes" => arguments.writes = columns(input)?,
                "init" => arguments.init = Some(input.parse()?),
                "config" => arguments.config = Some(input.parse()?),
                _ => return Err(Error::new(key.span(), format!("`{name}` is not known; {KNOWN}"))),
            }
            seen.push(name);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(arguments)
    }
}

/// The variant of `Kind`.
fn kind(input: ParseStream<'_>) -> Result<Ident> {
    let kind: Ident = input.parse()?;
    let variant = match kind.to_string().as_str() {
        "filter" => "Filter",
        "sample" => "Sample",
        "enrich" => "Enrich",
        "mask" => "Mask",
        other => {
            let what = format!("`{other}` is no kind; write filter, sample, enrich or mask");
            return Err(Error::new(kind.span(), what));
        }
    };
    Ok(Ident::new(variant, kind.span()))
}

/// A list of names, each a text.
fn columns(input: ParseStream<'_>) -> Result<Vec<Expr>> {
    let content;
    syn::bracketed!(content in input);
    let columns: Punctuated<Expr, Token![,]> = Punctuated::parse_terminated(&content)?;
    for column in &columns {
        let Expr::Lit(ExprLit { lit, .. }) = column else {
            continue;
        };
        match lit {
            Lit::Str(name) if !name.value().is_empty() => {}
            other => {
                return Err(Error::new_spanned(
                    other,
                    "the name of a column is a text such as \"severity\", \"service\" or \"attrs.http.route\"",
                ));
            }
        }
    }
    Ok(columns.into_iter().collect())
}
