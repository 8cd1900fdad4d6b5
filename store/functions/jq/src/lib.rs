//! Answers questions about JSON in the language of `jq`: the body is JSON, one value or several, and `?filter=` or the
//! header `X-Jq-Filter` says what of it is wanted. What a filter computes is bounded by the time and the memory
//! that the function has, and by its stack: such a call ends with a 504 or a 500, and the next knows nothing of it.

mod mistakes;

use std::io::{self, Write};

use fawn::{Error, Request, Response, Result, http::header};
use jaq_core::{Compiler, Ctx, Filter, Vars, data::JustLut, load};
use jaq_json::{
    Val,
    write::{Pp, write},
};
use serde::Deserialize;

/// The longest body, in bytes: as values it takes up to forty times as much.
const MAX_JSON_BYTES: usize = 2 << 20;
/// The longest filter, in bytes.
const MAX_FILTER_BYTES: usize = 4 << 10;
/// The most that is answered, in bytes: a short filter can make any amount.
const MAX_RESULT_BYTES: usize = 8 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    filter: Option<String>,
    /// Each result on a line of its own.
    #[serde(default)]
    compact: bool,
    /// Texts without their quotes.
    #[serde(default)]
    raw: bool,
}

/// Answers with the results, one after the other.
#[fawn::handler]
pub async fn handle(request: Request) -> Result<Response> {
    let query: Query = store::query(&request)?;
    let code = match (query.filter, request.headers().get("x-jq-filter")) {
        (Some(code), _) => code,
        (None, Some(code)) => str::from_utf8(code.as_bytes())
            .map_err(|cause| Error::bad_request("the header X-Jq-Filter is not UTF-8").because(cause))?
            .to_owned(),
        (None, None) => ".".to_owned(),
    };
    let filter = compile(&code)?;
    let json = request.into_body().bytes_up_to(MAX_JSON_BYTES).await?;
    let mut results = Results {
        bytes: Vec::new(),
        raw: query.raw,
        style: Pp {
            indent: (!query.compact).then(|| "  ".into()),
            sep_space: !query.compact,
            ..Pp::default()
        },
    };
    for value in serde_json::Deserializer::from_slice(&json).into_iter::<Val>() {
        let value = value.map_err(|error| Error::bad_request(format!("the body is not JSON: {error}")))?;
        if !run(&filter, value, &mut results)? {
            break;
        }
    }
    let kind = if query.raw { "text/plain; charset=utf-8" } else { "application/json" };
    Ok(Response::builder().header(header::CONTENT_TYPE, kind).body(results.bytes.into())?)
}

type Program = Filter<JustLut<Val>>;

fn compile(code: &str) -> Result<Program> {
    if code.len() > MAX_FILTER_BYTES {
        return Err(Error::bad_request(format!("the filter is longer than {MAX_FILTER_BYTES} bytes")));
    }
    let definitions = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    // `env` would show the function's variables to whoever calls it.
    let natives = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
    let natives = natives.filter(|(name, ..)| *name != "env");
    let arena = load::Arena::default();
    let modules = load::Loader::new(definitions)
        .load(&arena, load::File { code, path: () })
        .map_err(|errors| mistakes::in_grammar(code, errors))?;
    Compiler::default().with_funs(natives).compile(modules).map_err(|errors| mistakes::in_names(code, errors))
}

/// Tells whether the filter wants to go on, with the next value.
fn run(filter: &Program, value: Val, results: &mut Results) -> Result<bool> {
    let context = Ctx::<JustLut<Val>>::new(&filter.lut, Vars::new([]));
    for result in filter.id.run((context, value)) {
        match result.map_err(jaq_core::Exn::get_err) {
            Ok(result) => results.push(&result)?,
            Err(Ok(error)) => return Err(Error::bad_request(format!("the filter fails: {error}"))),
            Err(Err(halt)) => match halt.get_halt() {
                Ok(code @ 1..) => {
                    return Err(Error::bad_request(format!("the filter halts with the code {code}")));
                }
                _ => return Ok(false),
            },
        }
    }
    Ok(true)
}

struct Results {
    bytes: Vec<u8>,
    raw: bool,
    style: Pp,
}

impl Results {
    fn push(&mut self, result: &Val) -> Result<()> {
        let mut to = Bounded(&mut self.bytes);
        let written = match result {
            Val::TStr(text) if self.raw => to.write_all(text),
            other => write(&mut to, &self.style, 0, other),
        };
        written
            .and_then(|()| to.write_all(b"\n"))
            .map_err(|_| Error::bad_request(format!("the results are longer than {MAX_RESULT_BYTES} bytes")))
    }
}

/// Fails as soon as there is too much.
struct Bounded<'a>(&'a mut Vec<u8>);

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RESULT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
