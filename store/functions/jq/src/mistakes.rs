//! What is wrong with a filter, and where.

use fawn::Error;
use jaq_core::{compile::Undefined, load};

/// What does not follow jq's grammar. The first of several is told.
pub(crate) fn in_grammar(code: &str, errors: load::Errors<&str, ()>) -> Error {
    let (wanted, at) = match errors.into_iter().next().map(|(_, error)| error) {
        Some(load::Error::Lex(errors)) => match errors.into_iter().next() {
            Some((wanted, at)) => (format!("{} expected", wanted.as_str()), at),
            None => return wrong("it cannot be read"),
        },
        Some(load::Error::Parse(errors)) => match errors.into_iter().next() {
            Some((wanted, at)) => (format!("{} expected", wanted.as_str()), at),
            None => return wrong("it cannot be read"),
        },
        Some(load::Error::Io(errors)) => match errors.into_iter().next() {
            Some((at, why)) => (why, at),
            None => return wrong("it cannot be read"),
        },
        None => return wrong("it cannot be read"),
    };
    wrong(&format!("{wanted} {}", place(code, at)))
}

/// What names something that does not exist. The first of several is told.
pub(crate) fn in_names(code: &str, errors: jaq_core::compile::Errors<&str, ()>) -> Error {
    match errors.into_iter().flat_map(|(_, errors)| errors).next() {
        Some((name, Undefined::Filter(arity))) => {
            wrong(&format!("there is no filter {name}/{arity}, {}", place(code, name)))
        }
        Some((name, kind)) => wrong(&format!("there is no {} {name}, {}", kind.as_str(), place(code, name))),
        None => wrong("it names what does not exist"),
    }
}

fn wrong(text: &str) -> Error {
    Error::bad_request(format!("the filter is not understood: {text}"))
}

/// Where a piece of the code is in it.
fn place(code: &str, piece: &str) -> String {
    let offset = (piece.as_ptr() as usize).saturating_sub(code.as_ptr() as usize);
    let Some(before) = code.get(..offset) else { return "somewhere in it".into() };
    if offset == code.len() {
        return "at its end".into();
    }
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&letter| letter != '\n').count() + 1;
    format!("at line {line}, column {column}")
}
