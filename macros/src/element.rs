//! `#[derive(Element)]`.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Error, Fields, LitStr, Path, Result};

/// The struct's name, format and hash, computed from its fields where it is compiled.
pub fn expand(item: TokenStream) -> Result<TokenStream> {
    let input: DeriveInput = syn::parse2(item)?;
    let fail = |why: &str| Err(Error::new(Span::call_site(), why));
    let mut name = LitStr::new(&input.ident.unraw().to_string(), input.ident.span());
    let mut library: Path = syn::parse_quote!(::shmkit);
    let mut is_c = false;
    for attribute in &input.attrs {
        if attribute.path().is_ident("repr") {
            attribute.parse_nested_meta(|meta| {
                is_c |= meta.path.is_ident("C");
                // `align(…)` and `packed(…)` carry a number.
                if meta.input.peek(syn::token::Paren) {
                    let content;
                    syn::parenthesized!(content in meta.input);
                    content.parse::<TokenStream>()?;
                }
                Ok(())
            })?;
        }
        if attribute.path().is_ident("element") {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    name = meta.value()?.parse()?;
                } else if meta.path.is_ident("crate") {
                    library = meta.value()?.parse::<LitStr>()?.parse()?;
                } else {
                    return Err(meta.error("unknown option: there are `name = \"…\"` and `crate = \"…\"`"));
                }
                Ok(())
            })?;
        }
    }
    let Data::Struct(data) = &input.data else {
        return fail(
            "only a struct can be an element: an enum or a union has bit patterns that are not valid for every reader; use an integer and constants",
        );
    };
    let fields = match &data.fields {
        Fields::Named(fields) => &fields.named,
        _ => return fail("an element's fields need names, which other languages see: write `struct S { x: f64, … }`"),
    };
    if fields.is_empty() {
        return fail("an element needs at least one field");
    }
    if !is_c {
        return fail("an element needs a fixed layout: put `#[repr(C)]` on the struct");
    }
    let ident = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let field_names: Vec<LitStr> = fields
        .iter()
        .filter_map(|field| field.ident.as_ref())
        .map(|ident| LitStr::new(&ident.unraw().to_string(), ident.span()))
        .collect();
    let field_idents: Vec<_> = fields.iter().filter_map(|field| field.ident.as_ref()).collect();
    let field_types: Vec<_> = fields.iter().map(|field| &field.ty).collect();
    Ok(quote! {
        // SAFETY: the hash covers the fields' names, offsets and types and the struct's size; the format lists them in
        // order, with the bytes between them.
        unsafe impl #impl_generics #library::Element for #ident #type_generics #where_clause {
            const NAME: &'static str = #name;
            const FORMAT: #library::element::Format = {
                let mut format = #library::element::Format::new().push_str("T{");
                let mut at = 0usize;
                #(
                    let offset = ::core::mem::offset_of!(#ident #type_generics, #field_idents);
                    if offset > at {
                        format = format.push_number(offset - at).push_str("x");
                    }
                    format = format
                        .push(<#field_types as #library::Element>::FORMAT)
                        .push_str(":")
                        .push_str(#field_names)
                        .push_str(":");
                    at = offset + ::core::mem::size_of::<#field_types>();
                )*
                let size = ::core::mem::size_of::<#ident #type_generics>();
                if size > at {
                    format = format.push_number(size - at).push_str("x");
                }
                format.push_str("}")
            };
            const HASH: u64 = {
                let mut hash = #library::element::fnv_str(#library::element::fnv_start(), "struct");
                #(
                    hash = #library::element::fnv_str(hash, #field_names);
                    let offset = ::core::mem::offset_of!(#ident #type_generics, #field_idents);
                    hash = #library::element::fnv_u64(hash, offset as u64);
                    hash = #library::element::fnv_u64(hash, <#field_types as #library::Element>::HASH);
                )*
                #library::element::fnv_u64(hash, ::core::mem::size_of::<#ident #type_generics>() as u64)
            };
        }
    })
}
