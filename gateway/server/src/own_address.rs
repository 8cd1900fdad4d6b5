use http::Uri;

/// By which names functions know the gateway that they are called through (`OpenFaaS`'s documentation and charts).
const NAMES: [&str; 4] =
    ["gateway", "gateway.openfaas", "gateway.openfaas.svc", "gateway.openfaas.svc.cluster.local"];

/// Whether a URL is that of this gateway, by a name that `OpenFaaS` gives it. It needs no network.
pub(crate) fn is_own(uri: &Uri) -> bool {
    uri.host().is_some_and(|host| NAMES.contains(&host))
}

/// Whether it is that of a function behind it: `http://gateway.openfaas:8080/function/NAME`, or `/async-function/NAME`.
pub(crate) fn is_function(uri: &Uri) -> bool {
    let leads_there = ["/function/", "/async-function/"].iter().any(|start| uri.path().starts_with(start));
    uri.scheme_str() == Some("http") && leads_there
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_behind_this_gateway_are_known() {
        for (uri, own) in [
            ("http://gateway.openfaas:8080/function/a", true),
            ("http://gateway.openfaas/async-function/a.dev/x?y", true),
            ("http://gateway:8080/function/a", true),
            ("http://gateway.openfaas.svc.cluster.local:8080/function/a", true),
            ("http://gateway.openfaas:8080/system/functions", false),
            ("http://gateway.openfaas:8080/", false),
            ("https://gateway.openfaas:8080/function/a", false),
            ("http://gateway.openfaas.example.com/function/a", false),
            ("http://example.com/function/a", false),
        ] {
            let uri = uri.parse().unwrap();
            assert_eq!(is_own(&uri) && is_function(&uri), own, "{uri}");
        }
    }
}
