use super::*;
use fawn::{Bytes, testing};

fn ask(query: &str, filter: &str, json: impl Into<fawn::Body>) -> Response<Bytes> {
    let request = Request::post(format!("/{query}")).header("x-jq-filter", filter);
    testing::call(handle, request.body(json).unwrap())
}

fn compact(filter: &str, json: &str) -> String {
    let answer = ask("?compact=true", filter, json.to_owned());
    let text = String::from_utf8(answer.body().to_vec()).unwrap();
    assert_eq!(answer.status(), 200, "{filter}: {text}");
    text
}

fn refused(filter: &str, json: &str) -> String {
    let answer = ask("", filter, json.to_owned());
    assert_eq!(answer.status(), 400, "{filter}: {:?}", answer.body());
    String::from_utf8(answer.into_body().into()).unwrap()
}

#[test]
fn answers_as_jq_does() {
    assert_eq!(compact(".[] | select(.a > 1) | .b", r#"[{"a":1},{"a":2,"b":"x"}]"#), "\"x\"\n");
    assert_eq!(compact("map(.+1) | add", "[1,2]"), "5\n");
    assert_eq!(compact(".a", "{\"a\":1} {\"a\":[2]}"), "1\n[2]\n");
    assert_eq!(compact("1, halt, 2", "null null"), "1\n");
    assert_eq!(compact(".", "12345678901234567890"), "12345678901234567890\n");
    assert_eq!(compact(r#"test("^a.c$"; "i")"#, r#""ABC""#), "true\n");
    assert_eq!(compact(".", ""), "");
}

#[test]
fn takes_its_filter_from_query_or_header() {
    let answer = ask("?filter=.a%5B0%5D", ".b", r#"{"a":[1]}"#);
    assert_eq!(
        (answer.body().as_ref(), &answer.headers()["content-type"]),
        (&b"1\n"[..], &"application/json".parse().unwrap())
    );
    assert_eq!(ask("", ".", r#"{"a":[1]}"#).body(), "{\n  \"a\": [\n    1\n  ]\n}\n");
    assert_eq!(ask("?raw=true", ".", r#""a\"b""#).body(), "a\"b\n");
    let bare = Request::post("/?compact=true").body("[ 1 ]").unwrap();
    assert_eq!(testing::call(handle, bare).body(), "[1]\n");
}

#[test]
fn says_where_a_filter_is_wrong() {
    for (filter, said) in [
        (".a | | .b", "term expected at line 1, column 6"),
        (".a | §", "token expected at line 1, column 6"),
        (".[", "closing bracket expected at its end"),
        (".a |", "term expected at its end"),
        (". | nothere(1)", "there is no filter nothere/1, at line 1, column 5"),
        (". + $x", "there is no variable $x, at line 1, column 5"),
        ("include \"a\"; .", "at line 1, column 10"),
        (".a.b", "the filter fails: cannot index"),
        ("error(\"no\")", "the filter fails: \"no\""),
        ("\"no\" | halt_error", "the filter halts with the code 5"),
        ("env", "there is no filter env/0"),
    ] {
        let text = refused(filter, r#"{"a":1}"#);
        assert!(text.contains(said), "{filter}: {text}");
    }
}

#[test]
fn says_where_the_body_is_wrong() {
    assert!(refused(".", "{\"a\":\n1,}").contains("line 2 column 3"));
    assert!(refused(".", &"[".repeat(1000)).contains("recursion limit"));
}

#[test]
fn bounds_what_it_reads_and_writes() {
    assert_eq!(ask("", ".", vec![b' '; MAX_JSON_BYTES + 1]).status(), 413);
    assert!(refused(&" ".repeat(MAX_FILTER_BYTES + 1), "1").contains("longer than"));
    assert!(refused("repeat(1)", "1").contains("the results are longer"));
    assert!(refused("reduce range(64) as $i (0; [., .])", "1").contains("the results are longer"));
}
