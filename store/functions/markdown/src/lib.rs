//! Markdown to HTML that is safe to show: GitHub's tables, lists of tasks and struck text; of raw HTML, scripts, styles
//! and whatever else acts is left out.

use std::collections::HashSet;

use ammonia::Builder;
use fawn::{Error, Request, Response, Result, http::header};
use pulldown_cmark::{Event, Options, Parser, html};

/// The longest text, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// Answers with a piece of a page, without `<html>` and `<body>`.
#[fawn::handler]
pub async fn handle(request: Request) -> Result<Response> {
    let markdown = String::from_utf8(request.into_body().bytes_up_to(MAX_TEXT_BYTES).await?.into())
        .map_err(|cause| Error::bad_request("the body is not text in UTF-8").because(cause))?;
    Ok(Response::builder()
        .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
        // What gets past the filter all the same can do nothing.
        .header(header::CONTENT_SECURITY_POLICY, "sandbox")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .body(safe(&html(&markdown)).into())?)
}

fn html(markdown: &str) -> String {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let events = Parser::new_ext(markdown, options).map(|event| match event {
        // A box that nobody can tick, where pages of strangers have no forms.
        Event::TaskListMarker(done) => Event::Text(if done { "☑ " } else { "☐ " }.into()),
        event => event,
    });
    let mut page = String::with_capacity(markdown.len() * 3 / 2);
    html::push_html(&mut page, events);
    page
}

fn safe(html: &str) -> String {
    Builder::default()
        // How a table's columns are aligned, and which language a piece of code is in.
        .add_tag_attributes("th", ["style"])
        .add_tag_attributes("td", ["style"])
        .filter_style_properties(HashSet::from(["text-align"]))
        .add_tag_attributes("code", ["class"])
        .attribute_filter(|element, attribute, value| match (element, attribute) {
            ("code", "class") => value.starts_with("language-").then(|| value.into()),
            _ => Some(value.into()),
        })
        .clean(html)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fawn::testing;

    fn page(markdown: &str) -> String {
        let answer = testing::call(handle, Request::post("/").body(markdown.to_owned()).unwrap());
        assert_eq!(answer.status(), 200);
        String::from_utf8(answer.into_body().into()).unwrap()
    }

    #[test]
    fn is_markdown() {
        assert_eq!(page("# Hi\n\n*you*"), "<h1>Hi</h1>\n<p><em>you</em></p>\n");
        assert_eq!(page("~~no~~"), "<p><del>no</del></p>\n");
        assert!(page("- [x] done\n- [ ] not").contains("<li>☑ done</li>\n<li>☐ not</li>"));
        assert!(page("```rust\nfn\n```").contains("<code class=\"language-rust\">fn\n</code>"));
    }

    #[test]
    fn has_tables() {
        let table = page("|a|b|\n|-|-:|\n|1|2|\n");
        assert!(table.contains("<th style=\"text-align:right\">b</th>"), "{table}");
        assert!(table.contains("<td>1</td>"), "{table}");
    }

    #[test]
    fn lets_nothing_act() {
        for hostile in [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "[a](javascript:alert(1))",
            "<a href=\" jAvascript:alert(1)\">a</a>",
            "<iframe src=//example.com></iframe>",
            "<svg><style><img src=x onerror=alert(1)></style></svg>",
            "<td style=\"background:url(//example.com)\">",
            "<form action=//example.com><input></form>",
        ] {
            let page = page(hostile).to_lowercase();
            for part in ["script", "onerror", "iframe", "url(", "<form", "<input", "<style"] {
                assert!(!page.contains(part), "{hostile} became {page}");
            }
        }
    }

    #[test]
    fn refuses_what_is_no_text_or_too_long() {
        let status = |body: Vec<u8>| testing::call(handle, Request::post("/").body(body).unwrap()).status();
        assert_eq!(status(vec![0xff]), 400);
        assert_eq!(status(vec![b'x'; MAX_TEXT_BYTES]), 200);
        assert_eq!(status(vec![b'x'; MAX_TEXT_BYTES + 1]), 413);
    }
}
