//! A real Prometheus and a real Alertmanager, set up as OpenFaaS sets them up, but for shorter waits.

use std::fs;

use serde_json::Value;

use crate::{
    clients::client,
    edge::{self, Edge, Reply},
    process::{PATIENCE, Process},
};

/// The one rule that OpenFaaS CE scales by (the public chart's).
const RULES: &str = r#"
groups:
- name: openfaas
  rules:
  - alert: APIHighInvocationRate
    expr: sum(rate(gateway_function_invocation_total{code="200"}[10s])) BY (function_name) > 5
    for: 5s
    labels: {service: gateway, severity: major}
"#;

/// Both, watching one gateway.
pub(crate) struct Monitoring {
    /// They end with the test.
    _processes: [Process; 2],
    address: String,
    http: reqwest::Client,
}

impl Monitoring {
    pub(crate) async fn watch(edge: &Edge) -> Self {
        let (mut alertmanager, home) = client(edge, "prometheus-alertmanager");
        let route = "{receiver: scale-up, group_by: [alertname, cluster, service], group_wait: 0s, \
                     group_interval: 1s, repeat_interval: 5s}";
        let receiver = format!(
            "{{name: scale-up, webhook_configs: [{{url: '{}/system/alert', send_resolved: true, http_config: \
             {{basic_auth: {{username: admin, password: '{}'}}}}}}]}}",
            edge.gateway,
            edge.password()
        );
        let config = home.join("config.yml");
        fs::write(&config, format!("route: {route}\nreceivers: [{receiver}]\n")).unwrap();
        alertmanager.arg("--config.file").arg(config).arg("--storage.path").arg(home.join("data"));
        alertmanager.args(["--web.listen-address=127.0.0.1:0", "--cluster.listen-address="]);
        let mut alertmanager = Process::spawn(&mut alertmanager);
        let alerts = alertmanager.until(address).await;

        let (mut prometheus, home) = client(edge, "prometheus");
        let (config, rules) = (home.join("config.yml"), home.join("rules.yml"));
        fs::write(&rules, RULES).unwrap();
        let metrics = edge.metrics.trim_start_matches("http://");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
             alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alerts}']}}]}}]}}\n\
             scrape_configs: [{{job_name: gateway, static_configs: [{{targets: ['{metrics}']}}]}}]\n",
            rules.display()
        );
        fs::write(&config, text).unwrap();
        prometheus.arg("--config.file").arg(config).arg("--storage.tsdb.path").arg(home.join("data"));
        prometheus.arg("--web.listen-address=127.0.0.1:0");
        let mut prometheus = Process::spawn(&mut prometheus);
        let address = prometheus.until(address).await;
        let http = edge::client().timeout(PATIENCE).build().unwrap();
        Self { _processes: [alertmanager, prometheus], address, http }
    }

    /// The values that a query has now, that are numbers.
    pub(crate) async fn query(&self, query: &str) -> Vec<f64> {
        let request = self.http.get(format!("http://{}/api/v1/query", self.address));
        let answer = Reply::to(request.query(&[("query", query)])).await;
        // Not ready yet is no answer to the query.
        if answer.status == 503 {
            return Vec::new();
        }
        let data = &answer.json()["data"];
        let samples = match data["resultType"].as_str() {
            Some("vector") => data["result"].as_array().unwrap().iter().map(|one| &one["value"]).collect(),
            Some("scalar") => vec![&data["result"]],
            _ => panic!("{query}: {answer}"),
        };
        let value = |sample: &Value| sample[1].as_str().unwrap().parse::<f64>().unwrap();
        samples.into_iter().map(value).filter(|value| value.is_finite()).collect()
    }
}

/// The address in the line by which either says that it serves.
fn address(log: &str) -> Option<String> {
    let (_, after) = log.split_once("msg=\"Listening on\" address=")?;
    let (address, _) = after.split_once('\n')?;
    Some(address.to_owned())
}
