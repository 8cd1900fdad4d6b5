//! Markdown, as GitHub writes it, to HTML that is safe to show: raw HTML is shown as the text that it is, and links
//! that would run something lead nowhere.

use comrak::{Options, markdown_to_html};
use fawn::{Error, Request, Response, Result, http::header};

/// The longest text, in bytes: parsed, it takes up to three hundred times as much.
const MAX_TEXT_BYTES: usize = 256 << 10;

/// Answers with a piece of a page, without `<html>` and `<body>`.
#[fawn::handler]
pub async fn handle(request: Request) -> Result<Response> {
    let markdown = String::from_utf8(request.into_body().bytes_up_to(MAX_TEXT_BYTES).await?.into())
        .map_err(|cause| Error::bad_request("the body is not text in UTF-8").because(cause))?;
    Ok(Response::builder()
        .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
        // Should something get past that all the same, it can do nothing.
        .header(header::CONTENT_SECURITY_POLICY, "sandbox")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .body(html(&markdown).into())?)
}

fn html(markdown: &str) -> String {
    let mut options = Options::default();
    options.extension.autolink = true;
    options.extension.strikethrough = true;
    options.extension.table = true;
    options.extension.tasklist = true;
    options.render.escape = true;
    markdown_to_html(markdown, &options)
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
        assert!(page("- [x] done\n- [ ] not").contains("checked=\"\" disabled=\"\" /> done</li>"));
        assert!(page("```rust\nfn\n```").contains("<code class=\"language-rust\">fn\n</code>"));
    }

    #[test]
    fn has_tables() {
        let table = page("|a|b|\n|-|-:|\n|1|2|\n");
        assert!(table.contains("<th align=\"right\">b</th>"), "{table}");
        assert!(table.contains("<td>1</td>"), "{table}");
    }

    #[test]
    fn lets_nothing_act() {
        assert_eq!(page("<script>a</script>"), "&lt;script&gt;a&lt;/script&gt;\n");
        assert_eq!(page("a <img onerror=a>"), "<p>a &lt;img onerror=a&gt;</p>\n");
        for scheme in [
            "javascript:",
            " JavaScript&colon;",
            "java&Tab;script:",
            "vbscript:",
            "data:text/html,",
            "file:///",
        ] {
            for markdown in
                [format!("[a]({scheme}a)"), format!("![a](<{scheme}a>)"), format!("[a]\n\n[a]: {scheme}a")]
            {
                let page = page(&markdown).to_lowercase();
                let runs = ["javascript", "vbscript", "data", "file"]
                    .iter()
                    .any(|bad| page.contains(&format!("=\"{bad}:")));
                assert!(!runs, "{markdown}: {page}");
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
