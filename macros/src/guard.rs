//! `#[shmkit::main]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ItemFn, Path, Result};

/// The user's `main` becomes a function inside a `main` that begins and ends it.
pub fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let mut library: Path = syn::parse_quote!(::shmkit);
    syn::parse::Parser::parse2(
        syn::meta::parser(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("unknown option: `#[shmkit::main]` takes none but `crate = path`"));
            }
            library = meta.value()?.parse()?;
            Ok(())
        }),
        arguments,
    )?;
    let function: ItemFn = syn::parse2(item)?;
    let signature = &function.sig;
    if signature.ident != "main" {
        return Err(Error::new_spanned(&signature.ident, "`#[shmkit::main]` goes on `fn main`"));
    }
    if let Some(asyncness) = &signature.asyncness {
        let why = "an async `main` cannot be the main guard: write a plain `fn main` with `#[shmkit::main]` and start the runtime in it";
        return Err(Error::new_spanned(asyncness, why));
    }
    if !signature.inputs.is_empty() {
        return Err(Error::new_spanned(&signature.inputs, "`main` takes no arguments"));
    }
    let (attributes, visibility) = (&function.attrs, &function.vis);
    let mut inner = function.clone();
    inner.attrs.clear();
    inner.vis = syn::Visibility::Inherited;
    Ok(quote! {
        #(#attributes)*
        #visibility fn main() -> ::std::process::ExitCode {
            #inner
            #library::process::entry::main_guard::begin();
            #[allow(unused_imports)]
            use #library::process::entry::main_guard::{Returned, ViaOutcome as _, ViaTermination as _};
            // An outcome is found first, by value; anything else that `main` may return, by one reference more.
            (&Returned(::std::cell::Cell::new(::std::option::Option::Some(main())))).end()
        }
    })
}
