use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use reqwest::{Body, Method, Response, StatusCode, header::CONTENT_TYPE};
use runtime_api::FunctionName;
use serde_json::json;
use tokio_util::io::ReaderStream;

use crate::{
    client::{ClientArguments, beginning},
    deploy::{pair, time},
    terminal::printable,
    usage::Mistakes,
};

/// What is shown of an answer that is an error.
const MAX_REASON_BYTES: usize = 64 << 10;

/// Call a function
///
/// Standard input is the body, unless it is a terminal; the answer goes to standard output as it comes. An answer of 400 or
/// more is an error: it goes to standard error, and the exit code is 1.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fawn invoke hello
  echo some text | fawn invoke echo
  fawn invoke resize.staging --content-type image/png --query width=100 < in.png > out.png
  fawn invoke report --async -H 'X-Callback-Url: http://example.com/done' --no-body
  fawn invoke api --method GET -H 'Accept: application/json'

The gateway's credentials are not sent: they are not the function's.")]
pub(crate) struct InvokeArguments {
    /// NAME or NAME.NAMESPACE
    function: String,
    #[command(flatten)]
    client: ClientArguments,
    /// The function's namespace, where NAME has none
    #[arg(long, short)]
    namespace: Option<String>,
    /// Keep the call and run it later; prints its id
    #[arg(long = "async", short)]
    later: bool,
    /// The method
    #[arg(long, short, default_value = "POST", value_parser = method)]
    method: Method,
    /// A header; may be repeated
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// A parameter of the query; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    query: Vec<(String, String)>,
    /// The body's type
    #[arg(long, default_value = "text/plain", value_name = "TYPE")]
    content_type: String,
    /// Send no body, whatever standard input is
    #[arg(long)]
    no_body: bool,
    /// How long the call may take, to the end of its answer
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = time)]
    timeout: Duration,
    /// Of a call that runs later, print one JSON object
    #[arg(long, requires = "later")]
    json: bool,
}

pub(crate) async fn run(arguments: InvokeArguments) -> Result<()> {
    let function = arguments.function_name().map_err(|error| Mistakes::from(error.to_string()))?;
    let gateway = arguments.client.gateway(None)?;
    let route = if arguments.later { "async-function" } else { "function" };
    let mut request = gateway.call(arguments.method.clone(), route, &function).timeout(arguments.timeout);
    for (name, value) in &arguments.header {
        request = request.header(name, value);
    }
    if !arguments.query.is_empty() {
        request = request.query(&arguments.query);
    }
    if !arguments.no_body && !io::stdin().is_terminal() {
        if !arguments.header.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            request = request.header(CONTENT_TYPE, &arguments.content_type);
        }
        request = request.body(Body::wrap_stream(ReaderStream::new(tokio::io::stdin())));
    }
    let answer = gateway.send(request).await?;
    match answer.status() {
        status if status.as_u16() >= 400 => Err(reason(&function, answer).await),
        StatusCode::ACCEPTED if arguments.later => accepted(&arguments, &function, &answer),
        _ => copy(answer).await,
    }
}

impl InvokeArguments {
    fn function_name(&self) -> runtime_api::Result<FunctionName> {
        match &self.namespace {
            Some(namespace) => FunctionName::new(&self.function, namespace),
            None => FunctionName::parse(&self.function),
        }
    }
}

/// Hands the answer on, piece by piece.
async fn copy(mut answer: Response) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let unwritable = "standard output cannot be written";
    while let Some(piece) = answer.chunk().await.context("the answer broke off")? {
        stdout.write_all(&piece).context(unwritable)?;
        stdout.flush().context(unwritable)?;
    }
    Ok(())
}

/// What an answer that is an error says.
async fn reason(function: &FunctionName, mut answer: Response) -> anyhow::Error {
    let status = answer.status();
    let code = answer.headers().get("x-error-code").and_then(|code| code.to_str().ok());
    let code = code.map(|code| format!(" ({})", printable(code))).unwrap_or_default();
    let text = beginning(&mut answer, MAX_REASON_BYTES).await;
    let lines: Vec<_> = text.trim_end().lines().map(printable).collect();
    let said = if lines.is_empty() { "it says nothing else".into() } else { lines.join("\n") };
    anyhow::anyhow!("{} answered {status}{code}: {said}", function.name())
}

fn accepted(arguments: &InvokeArguments, function: &FunctionName, answer: &Response) -> Result<()> {
    let id = answer.headers().get("x-call-id").and_then(|id| id.to_str().ok());
    let Some(id) = id else { bail!("the gateway took the call of {} and told no id", function.name()) };
    let mut stdout = io::stdout();
    if arguments.json {
        let fields = json!({"name": function.name(), "namespace": function.namespace(), "callId": id});
        return Ok(writeln!(stdout, "{fields}")?);
    }
    writeln!(stdout, "{}", printable(id))?;
    // Standard output is for scripts.
    let _ = writeln!(io::stderr(), "see `fawn queue show {}`", printable(id));
    Ok(())
}

fn method(text: &str) -> Result<Method, String> {
    text.to_ascii_uppercase().parse().map_err(|_| "write it like GET or POST".into())
}

/// Reads `Name: value`.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').or_else(|| text.split_once('=')).unwrap_or_default();
    let known =
        http::HeaderName::try_from(name.trim()).is_ok() && http::HeaderValue::try_from(value.trim()).is_ok();
    if !known {
        return Err("write it like 'Name: value'".into());
    }
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: InvokeArguments,
    }

    fn parse(line: &[&str]) -> Result<InvokeArguments, clap::Error> {
        Ok(Line::try_parse_from(["invoke"].iter().chain(line))?.arguments)
    }

    #[test]
    fn a_call_is_described_on_the_line() {
        let line =
            ["f.dev", "-H", "X-A: b: c", "-H", "X-B=d", "--query", "a=1=2", "-m", "get", "--async", "--json"];
        let call = parse(&line).unwrap();
        assert_eq!(call.function_name().unwrap().as_str(), "f.dev");
        assert_eq!(call.header, [("X-A".into(), "b: c".into()), ("X-B".into(), "d".into())]);
        assert_eq!((call.method, &*call.query[0].1, call.later), (Method::GET, "1=2", true));
        assert_eq!(parse(&["f", "-n", "dev"]).unwrap().function_name().unwrap().as_str(), "f.dev");
    }

    #[test]
    fn mistakes_are_told_before_anything_is_sent() {
        for line in
            [&["f", "-H", "nothing"][..], &["f", "-H", "a b: c"], &["f", "-m", "a b"], &["f", "--json"], &[]]
        {
            assert!(parse(line).is_err(), "{line:?}");
        }
        assert!(parse(&["Upper"]).unwrap().function_name().is_err());
        assert!(parse(&["f.dev", "-n", "dev"]).unwrap().function_name().is_err());
    }
}
