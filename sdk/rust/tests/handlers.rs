//! Handlers as their authors write them, called as their unit tests call them.
#![expect(clippy::unwrap_used, reason = "tests may")]

use std::io;

use fawn::{
    Body, Bytes, Client, Error, Json, Request, Response,
    http::StatusCode,
    testing::{Sandbox, call},
};
use futures_lite::stream;
use serde::{Deserialize, Serialize};

fn post(body: impl Into<Body>) -> Request {
    Request::post("/").body(body.into()).unwrap()
}

/// A body in these pieces.
fn pieces(pieces: &'static [&'static str]) -> Body {
    Body::from_stream(stream::iter(pieces.iter().map(|piece| Ok::<_, io::Error>(*piece))))
}

fn text(answer: &Response<Bytes>) -> (u16, &str) {
    (answer.status().as_u16(), std::str::from_utf8(answer.body()).unwrap())
}

#[derive(Deserialize, Serialize)]
struct Point {
    x: i32,
    y: i32,
}

#[fawn::handler]
async fn mirror(Json(Point { x, y }): Json<Point>) -> fawn::Result<Json<Point>> {
    Ok(Json(Point { x: y, y: x }))
}

#[test]
fn json_comes_in_and_goes_out() {
    let answer = call(mirror, post(r#"{"x": 1, "y": -2, "z": 3}"#));
    assert_eq!(text(&answer), (200, r#"{"x":-2,"y":1}"#));
    assert_eq!(answer.headers()["content-type"], "application/json");
}

#[test]
fn json_that_is_not_wanted_is_the_callers_fault() {
    let answer = call(mirror, post(r#"{"x": 1}"#));
    let told = "the body is not the JSON that is wanted: missing field `y` at line 1 column 8\n";
    assert_eq!(text(&answer), (400, told));
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    assert_eq!(call(mirror, post("")).status(), 400);
    assert_eq!(call(async |text: String| text, post(vec![0xff])).status(), 400);
}

#[test]
fn a_failure_tells_the_caller_what_the_handler_chose() {
    let fails = async |_: Request| -> fawn::Result<()> {
        Err(Error::new(StatusCode::CONFLICT, "taken").because("row 17 of table names"))
    };
    assert_eq!(
        text(&call(async |request| fails(request).await.map(|()| "never"), post(""))),
        (409, "taken\n")
    );
}

#[test]
fn an_error_keeps_all_that_it_came_from() {
    let lower = Error::not_found("no row 17").because(io::Error::other("the disk is on fire"));
    let error = Error::bad_request("no such pet").because("first").because("second").because(lower);
    assert_eq!(error.to_string(), "400 Bad Request: no such pet");
    let log = format!("{error:?}");
    assert!(log.contains(": 400 Bad Request: no such pet: tests/handlers.rs:"), "{log}");
    assert!(log.ends_with(": 404 Not Found: no row 17: the disk is on fire: second: first"), "{log}");
}

#[test]
fn any_other_failure_tells_nothing() {
    const NOTHING: (u16, &str) = (500, "internal server error\n");
    let io = async |_: Request| -> fawn::Result<String> { Ok(std::fs::read_to_string("/no/such/file")?) };
    assert_eq!(text(&call(io, post(""))), NOTHING);
    let own = async |_: Request| -> Result<String, String> { Err("password: hunter2".into()) };
    assert_eq!(text(&call(own, post(""))), NOTHING);
    let error = Error::from(io::Error::other("password: hunter2"));
    assert_eq!(error.to_string(), "500 Internal Server Error: internal server error");
    let for_the_log = format!("{error:?}");
    assert!(for_the_log.starts_with("tests/handlers.rs:"), "{for_the_log}");
    assert!(for_the_log.ends_with(": password: hunter2"), "{for_the_log}");
}

#[test]
fn the_log_names_the_authors_line() {
    let errors = [
        || Ok("x".parse::<i32>().map(drop)?),
        || Err("no luck".into()),
        || Err(Error::not_found("no luck")),
        || fawn::secret("token").map(drop),
        || fawn::env("FAWN_TEST_NOTHING").map(drop),
        || fawn::function_url("no name").map(drop),
    ] as [fn() -> fawn::Result<()>; 6];
    let first = line!() - 7;
    for (line, fails) in (first..).zip(errors) {
        let error = format!("{:?}", fails().unwrap_err());
        assert!(error.starts_with(&format!("tests/handlers.rs:{line}:")), "{line}: {error}");
    }
}

#[test]
fn bodies_are_read_whole_or_piece_by_piece() {
    let whole = async |text: String| text;
    for (sent, wanted) in [
        (pieces(&[]), ""),
        (pieces(&["one"]), "one"),
        (pieces(&["", "one", "", "two", "three"]), "onetwothree"),
    ] {
        assert_eq!(text(&call(whole, post(sent))), (200, wanted));
    }
    let counted = async |request: Request| -> fawn::Result<String> {
        let (mut body, mut lengths) = (request.into_body(), Vec::new());
        while let Some(piece) = body.chunk().await? {
            lengths.push(piece.len());
        }
        Ok(format!("{lengths:?}"))
    };
    assert_eq!(text(&call(counted, post(pieces(&["one", "", "three"])))), (200, "[3, 5]"));
    assert_eq!(text(&call(counted, post("at once"))), (200, "[7]"));
}

#[test]
fn a_body_is_read_up_to_a_limit() {
    let limited = async |request: Request| -> fawn::Result<Vec<u8>> {
        Ok(request.into_body().bytes_up_to(4).await?.into())
    };
    for fits in [pieces(&["1234"]), pieces(&["12", "34"]), "1234".into(), Body::empty()] {
        assert_eq!(call(limited, post(fits)).status(), 200);
    }
    for too_long in [pieces(&["12345"]), pieces(&["12", "34", "5"]), "12345".into(), pieces(&["12345", ""])] {
        assert_eq!(text(&call(limited, post(too_long))), (413, "the body is longer than 4 bytes\n"));
    }
}

#[test]
fn a_body_that_breaks_off_is_the_callers_fault() {
    let broken = stream::iter([Ok("first"), Err(io::Error::from(io::ErrorKind::ConnectionReset))]);
    let answer = call(async |text: String| text, post(Body::from_stream(broken)));
    assert_eq!(text(&answer), (400, "the body broke off\n"));
}

#[test]
fn secrets_are_those_that_the_function_has() {
    let reader = async |name: String| fawn::secret(&name);
    let given = || Sandbox::new().secret("token", "hunter2\n").secret("key", vec![0, 255]);
    assert_eq!(text(&given().call(reader, post("token"))), (200, "hunter2"));
    for other in ["key", "nothing", "", "..", "../token", "a/b", "token\0"] {
        assert_eq!(given().call(reader, post(other)).status(), 500, "{other:?}");
    }
    // Nothing of one call is there in the next.
    assert_eq!(call(reader, post("token")).status(), 500);
    let error = fawn::secret("token").unwrap_err();
    assert!(format!("{error:?}").contains("faas-cli secret create token"), "{error:?}");
    let bytes = async |_: Request| fawn::secret_bytes("key");
    assert_eq!(given().call(bytes, post("")).body(), &[0, 255][..]);
}

#[test]
fn variables_are_given_or_have_a_default() {
    let greeting = async |_: Request| fawn::env_or("FAWN_TEST_GREETING", "hello");
    assert_eq!(text(&call(greeting, post(""))), (200, "hello"));
    assert_eq!(
        text(&Sandbox::new().variable("FAWN_TEST_GREETING", "hi").call(greeting, post(""))),
        (200, "hi")
    );
    let error = fawn::env("FAWN_TEST_GREETING").unwrap_err();
    assert!(format!("{error:?}").contains("under `environment` in stack.yml"), "{error:?}");
}

#[test]
fn a_function_calls_others_through_the_gateway() {
    let relay = async |name: String| -> fawn::Result<Response> { fawn::call(&name, "for you").await };
    let world = || {
        Sandbox::new().variable("gateway_url", "https://faas.example.com/").answering(|request| {
            assert_eq!(request.method(), "POST");
            Response::builder().status(418).body(request.uri().to_string().into()).unwrap()
        })
    };
    let url = "https://faas.example.com/function/tea.staff";
    assert_eq!(text(&world().call(relay, post("tea.staff"))), (418, url));
    for bad in ["", "a/b", "a?b", "..", "a b", "a%2fb", "ä"] {
        assert_eq!(world().call(relay, post(bad)).status(), 500, "{bad:?}");
    }
}

#[test]
fn without_an_answer_a_request_is_a_502_that_hides_the_address() {
    let fetch = async |url: String| -> fawn::Result<Response> {
        Client::new().send(Request::get(url).body("")?).await
    };
    let told = "a service that this function needs did not answer\n";
    assert_eq!(text(&call(fetch, post("https://example.com/?key=hunter2"))), (502, told));
    for not_whole in ["/path", "example.com"] {
        assert_eq!(call(fetch, post(not_whole)).status(), 500, "{not_whole}");
    }
}

#[test]
fn an_answer_that_is_not_as_expected_is_a_502_that_hides_it() {
    const TOLD: (u16, &str) = (502, "a service that this function needs did not answer as expected\n");
    let fetch = async || fawn::call("other", "").await.map(Response::into_body);
    let json =
        async |_: Request| -> fawn::Result<String> { Ok(fetch().await?.json::<f64>().await?.to_string()) };
    let utf_8 = async |_: Request| -> fawn::Result<String> { fetch().await?.text().await };
    let short = async |_: Request| -> fawn::Result<Bytes> { fetch().await?.bytes_up_to(4).await };
    let answered = |body: fn() -> Body| Sandbox::new().answering(move |_| Response::new(body()));
    assert_eq!(text(&answered(|| r#""token=abc""#.into()).call(json, post(""))), TOLD);
    assert_eq!(text(&answered(|| vec![b't', 0xff].into()).call(utf_8, post(""))), TOLD);
    for too_long in [|| "12345".into(), || pieces(&["12", "345"])] as [fn() -> Body; 2] {
        assert_eq!(text(&answered(too_long).call(short, post(""))), TOLD);
    }
    let broken = || Body::from_stream(stream::iter([Ok("one"), Err(io::Error::other("token=abc"))]));
    assert_eq!(text(&answered(broken).call(utf_8, post(""))), TOLD);

    // The log has the cause.
    let logged = async |_: Request| -> fawn::Result<String> {
        Ok(format!("{:?}", fetch().await?.text().await.unwrap_err()))
    };
    let log = "502 Bad Gateway: a service that this function needs did not answer as expected: the body broke off: \
               token=abc";
    assert_eq!(text(&answered(broken).call(logged, post(""))), (200, log));
}

#[test]
fn what_answers_may_call_a_handler_itself() {
    let inner = async |_: Request| fawn::env_or("FAWN_TEST_WHERE", "nowhere");
    let twice = async |_: Request| -> fawn::Result<String> {
        let first = fawn::call("inner", "").await?.into_body().text().await?;
        let second = fawn::call("inner", "").await?.into_body().text().await?;
        Ok(format!("{first}, {second}, {}", fawn::env("FAWN_TEST_WHERE")?))
    };
    let sandbox = Sandbox::new()
        .variable("FAWN_TEST_WHERE", "outside")
        .answering(move |request| call(inner, request).map(Body::from));
    assert_eq!(text(&sandbox.call(twice, post(""))), (200, "nowhere, nowhere, outside"));
}

#[test]
fn the_log_does_not_learn_what_an_address_holds() {
    for address in ["/path?key=hunter2", "hunter2"] {
        let request = Request::get(address).body("").unwrap();
        let error = futures_lite::future::block_on(Client::new().send(request)).unwrap_err();
        let log = format!("{error:?}");
        assert!(log.contains("GET: the address is not a whole one") && !log.contains("hunter2"), "{log}");
    }
}
