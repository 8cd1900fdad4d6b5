//! The attribute `#[fawn::handler]`. Its documentation is that of the crate `fawn-sdk`, which exports it.

use proc_macro::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Error, FnArg, ItemFn, Signature, spanned::Spanned};

#[expect(missing_docs, reason = "documented where it is exported")]
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = proc_macro2::TokenStream::from(arguments);
    let item = proc_macro2::TokenStream::from(item);
    let exported = match expand(&arguments, &item) {
        Ok(exported) => exported,
        Err(error) => error.to_compile_error(),
    };
    // The function stays what it is: its own mistakes are told where they are, and tests call it.
    quote! { #item #exported }.into()
}

fn expand(
    arguments: &proc_macro2::TokenStream,
    item: &proc_macro2::TokenStream,
) -> syn::Result<proc_macro2::TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new(arguments.span(), "#[fawn::handler] takes no arguments"));
    }
    let Ok(ItemFn { sig, .. }) = syn::parse2(item.clone()) else {
        // What is wrong with a function that cannot be read, the compiler itself tells.
        return Ok(proc_macro2::TokenStream::new());
    };
    let argument = argument(&sig)?;
    let name = &sig.ident;
    let takes = quote_spanned! { argument.span() => ::fawn::__private::takes::<#argument>(); };
    let answers = quote_spanned! { sig.output.span() => ::fawn::__private::answers(#name); };
    Ok(quote! {
        const _: fn() = || { #takes #answers };
        #[cfg(target_family = "wasm")]
        const _: () = { ::fawn::__export!(#name); };
    })
}

/// The type of the one argument.
fn argument(sig: &Signature) -> syn::Result<&syn::Type> {
    if sig.asyncness.is_none() {
        return Err(Error::new(sig.fn_token.span, "a handler is async: write `async fn`"));
    }
    if !sig.generics.params.is_empty() {
        return Err(Error::new(sig.generics.span(), "a handler has no generics: nobody would choose them"));
    }
    let mut inputs = sig.inputs.iter();
    match (inputs.next(), inputs.next()) {
        (Some(FnArg::Typed(argument)), None) => Ok(&argument.ty),
        _ => Err(Error::new(
            sig.ident.span(),
            "a handler takes one argument, as in `async fn handle(request: fawn::Request)`",
        )),
    }
}
