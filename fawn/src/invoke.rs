use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use reqwest::{
    Body, Method, RequestBuilder, Response, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};
use runtime_api::FunctionName;
use serde_json::json;
use tokio_util::io::ReaderStream;

use crate::{
    client::{ClientArguments, Gateway, beginning},
    deploy::{pair, time},
    stack,
    terminal::printable,
    usage::Mistakes,
};

/// What is shown of an answer that is an error.
const MAX_REASON_BYTES: usize = 64 << 10;
/// The type of a body of which nothing is said (faas-cli).
const DEFAULT_TYPE: &str = "text/plain";

/// Call a function
///
/// Standard input is the body, unless it is a terminal; the answer goes to standard output as it comes. An answer that is
/// not of 2xx is an error, also one that refers elsewhere, and so is one to --async that is not 202: it goes to standard
/// error, and the exit code is 1.
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
    /// The stack file whose gateway is called [default: stack.yaml, else stack.yml, if there is one]
    #[arg(long, short = 'f', value_name = "FILE")]
    yaml: Option<PathBuf>,
    /// The function's namespace, where NAME has none
    #[arg(long, short)]
    namespace: Option<String>,
    /// Keep the call and run it later; prints its id
    #[arg(long = "async", short)]
    later: bool,
    /// The method
    #[arg(long, short, default_value = "POST", value_parser = method)]
    method: Method,
    /// A header, also written NAME=VALUE; may be repeated
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// A parameter of the query; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    query: Vec<(String, String)>,
    /// The body's type [default: text/plain, where there is a body]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
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
    let gateway = arguments.client.gateway(arguments.gateway_of_stack()?.as_deref())?;
    let has_body = !arguments.no_body && !io::stdin().is_terminal();
    let mut request = arguments.request(&gateway, &function, has_body);
    if has_body {
        request = request.body(Body::wrap_stream(ReaderStream::new(tokio::io::stdin())));
    }
    let answer = gateway.send(request).await?;
    match arguments.checked(&function, answer).await? {
        answer if arguments.later => accepted(&arguments, &function, &answer),
        answer => copy(answer).await,
    }
}

impl InvokeArguments {
    fn function_name(&self) -> runtime_api::Result<FunctionName> {
        match &self.namespace {
            Some(namespace) => FunctionName::new(&self.function, namespace),
            None => FunctionName::parse(&self.function),
        }
    }

    /// Where --gateway says it, only a stack file that is named is read.
    fn gateway_of_stack(&self) -> Result<Option<String>> {
        match &self.yaml {
            Some(file) => stack::gateway(Some(file.clone())),
            None if self.client.names_gateway() => Ok(None),
            None => stack::gateway(None)
                .context("the stack file here is to say which gateway is called: mend it, or give --gateway"),
        }
    }

    /// The call, but for its body.
    fn request(&self, gateway: &Gateway, function: &FunctionName, has_body: bool) -> RequestBuilder {
        let route = if self.later { "async-function" } else { "function" };
        let mut request = gateway.call(self.method.clone(), route, function).timeout(self.timeout);
        for (name, value) in &self.header {
            request = request.header(name, value);
        }
        if !self.query.is_empty() {
            request = request.query(&self.query);
        }
        let is_typed = self.header.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        match self.content_type.as_deref().or(has_body.then_some(DEFAULT_TYPE)) {
            Some(content_type) if !is_typed => request.header(CONTENT_TYPE, content_type),
            _ => request,
        }
    }

    /// The answer, if the call took place, or is to take place later.
    async fn checked(&self, function: &FunctionName, answer: Response) -> Result<Response> {
        match answer.status() {
            StatusCode::ACCEPTED if self.later => Ok(answer),
            _ if self.later => Err(reason(function, answer).await.context("the call is not kept")),
            status if status.is_success() => Ok(answer),
            _ => Err(reason(function, answer).await),
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
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(printable);
    let code = header("x-error-code").map(|code| format!(" ({code})")).unwrap_or_default();
    let location = header(LOCATION.as_str()).filter(|_| status.is_redirection());
    let location = location.map(|target| format!(" with Location: {target}")).unwrap_or_default();
    let text = beginning(&mut answer, MAX_REASON_BYTES).await;
    let said = if text.is_empty() { "it says nothing else" } else { &text };
    anyhow::anyhow!("{} answered {status}{code}{location}: {said}", function.name())
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

/// Reads `Name: value`, and `Name=value` as faas-cli has it: whichever comes first is meant.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once([':', '=']).unwrap_or_default();
    let known =
        http::HeaderName::try_from(name.trim()).is_ok() && http::HeaderValue::try_from(value.trim()).is_ok();
    if !known {
        return Err("write it like 'Name: value' or Name=value".into());
    }
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::client::parse_gateway;

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
    fn headers_are_written_as_in_http_or_as_faas_cli_has_it() {
        for (text, name, value) in [
            ("X-Callback-Url=http://g/x", "X-Callback-Url", "http://g/x"),
            ("X-Callback-Url: http://g/?a=b", "X-Callback-Url", "http://g/?a=b"),
            ("X-Empty:", "X-Empty", ""),
        ] {
            assert_eq!(header(text).unwrap(), (name.to_owned(), value.to_owned()));
        }
    }

    #[test]
    fn a_type_is_sent_if_it_is_given_or_there_is_a_body() {
        // Installed already when another test of this process was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let gateway = Gateway::new(parse_gateway("g:1").unwrap(), None).unwrap();
        let sent = |line: &[&str], has_body| {
            let call = parse(line).unwrap();
            let request = call.request(&gateway, &call.function_name().unwrap(), has_body).build().unwrap();
            let types = request.headers().get_all(CONTENT_TYPE).iter();
            types.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(sent(&["f"], false), [""; 0]);
        assert_eq!(sent(&["f"], true), ["text/plain"]);
        assert_eq!(sent(&["f", "--content-type", "a/b"], false), ["a/b"]);
        assert_eq!(sent(&["f", "-H", "content-type: c/d"], true), ["c/d"]);
    }

    #[tokio::test]
    async fn a_call_that_did_not_happen_is_an_error() {
        let checked = async |line: &[&str], status: u16| {
            let answer = http::Response::builder().status(status).header(LOCATION, "http://g/x");
            let answer = answer.body(Body::from("so")).unwrap().into();
            let call = parse(line).unwrap();
            let checked = call.checked(&call.function_name().unwrap(), answer).await;
            checked.map(drop).map_err(|error| format!("{error:#}"))
        };
        for status in [200, 202, 204] {
            checked(&["f"], status).await.unwrap();
        }
        for status in [302, 304, 404, 500] {
            let error = checked(&["f"], status).await.unwrap_err();
            assert!(
                error.starts_with(&format!("f answered {status} ")) && error.ends_with(": so"),
                "{error}"
            );
            assert_eq!(error.contains("with Location: http://g/x"), status < 400, "{error}");
        }
        checked(&["f", "--async"], 202).await.unwrap();
        for status in [200, 301, 404] {
            let error = checked(&["f", "--async"], status).await.unwrap_err();
            assert!(error.starts_with(&format!("the call is not kept: f answered {status} ")), "{error}");
        }
    }

    #[test]
    fn a_stack_file_says_which_gateway_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("my.yml");
        let line = |more: &[&str]| {
            let line = [&["f", "-f", file.to_str().unwrap()][..], more].concat();
            parse(&line).unwrap().gateway_of_stack()
        };
        assert!(line(&[]).unwrap_err().to_string().contains("my.yml: it cannot be read"));
        std::fs::write(&file, "provider: {name: openfaas, gateway: 'http://g:1'}").unwrap();
        assert_eq!(line(&[]).unwrap().as_deref(), Some("http://g:1"));
        assert!(parse(&["f", "-g", "h:2"]).unwrap().gateway_of_stack().unwrap().is_none());
        std::fs::write(&file, "provider: {name: other}").unwrap();
        assert!(line(&["-g", "h:2"]).unwrap_err().is::<Mistakes>());
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
