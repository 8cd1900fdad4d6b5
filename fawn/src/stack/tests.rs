use super::*;

const HEAD: &str = "version: 1.0\nprovider: {name: openfaas, gateway: 'http://g:1'}\n";

fn parse(functions: &str) -> Result<Stack, Mistakes> {
    Stack::parse(Path::new("stack.yml"), &format!("{HEAD}{functions}"))
}

fn spec(function: &str) -> FunctionSpec {
    let stack = parse(&format!("functions:\n  f:\n{function}")).unwrap();
    stack.functions["f"].spec("f", "image".into(), None, &Additions::default()).unwrap()
}

fn arguments(filter: Option<&str>, regex: Option<&str>) -> StackArguments {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    StackArguments { yaml: None, filter: owned(filter), regex: owned(regex), envsubst: true }
}

#[test]
fn the_file_of_a_handbook_is_read_whole() {
    let text = r#"functions:
  hello-world:
    lang: python3
    handler: ./hello-world
    image: hello-world:latest
    environment: { write_debug: true }
    labels:
      com.openfaas.scale.min: "1"
      com.openfaas.scale.max: "10"
    limits: { cpu: 100m, memory: 128Mi }
    requests: { cpu: 50m, memory: 64Mi }
    secrets: [db-password, api-secret]
    annotations:
      faas.net/async: "true"
configuration:
  copy: [common]
  templates:
    - {name: python3, source: "https://github.com/openfaas/templates"}
"#;
    let stack = parse(text).unwrap();
    assert_eq!((stack.gateway.as_deref(), &*stack.copy), (Some("http://g:1"), &["common".to_owned()][..]));
    assert_eq!(stack.templates["python3"], "https://github.com/openfaas/templates");
    let function = &stack.functions["hello-world"];
    assert_eq!((function.template(), function.handler.as_deref()), (Some("python3"), Some("./hello-world")));
    let spec =
        function.spec("hello-world", "i".into(), Some("python index.py"), &Additions::default()).unwrap();
    let json = serde_json::to_value(&spec).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "service": "hello-world", "image": "i", "namespace": "openfaas-fn", "envProcess": "python index.py",
            "envVars": {"write_debug": "true"}, "secrets": ["db-password", "api-secret"],
            "labels": {"com.openfaas.scale.max": "10", "com.openfaas.scale.min": "1"},
            "annotations": {"faas.net/async": "true"},
            "limits": {"cpu": "100m", "memory": "128Mi"}, "requests": {"cpu": "50m", "memory": "64Mi"},
        })
    );
}

#[test]
fn numbers_and_truths_are_the_text_that_stands_there() {
    let spec = spec(
        "    environment: {a: 1.10, b: 0x1F, c: yes, d: true, e: ~, f: , g: '', h: 007, i: 1_000}\n    limits: {cpu: 1}\n\
         \x20   readonly_root_filesystem: yes\n    fprocess: 12\n",
    );
    let values: Vec<_> = spec.env_vars.values().map(String::as_str).collect();
    assert_eq!(values, ["1.10", "0x1F", "yes", "true", "", "", "", "007", "1_000"]);
    assert_eq!((&*spec.limits.unwrap().cpu, &*spec.env_process), ("1", "12"));
    assert!(spec.read_only_root_filesystem);
}

#[test]
fn anchors_and_merge_keys_share_settings() {
    let stack = parse(
        "x-common: &common\n  lang: go-wasm\n  environment: &variables {a: 1.0, b: '2'}\n\
         x-more: &more {image: base, secrets: [one]}\n\
         functions:\n  f:\n    <<: [*common, *more]\n    image: own\n\
         \x20 g:\n    <<: *common\n    environment:\n      <<: *variables\n      b: mine\n",
    )
    .unwrap();
    let function = |name: &str| &stack.functions[name];
    assert_eq!((function("f").template(), function("f").image.as_deref()), (Some("go-wasm"), Some("own")));
    assert_eq!(function("f").secrets.as_deref(), Some(&["one".to_owned()][..]));
    let variables = |name: &str| Vec::from_iter(strings(&function(name).environment));
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(variables("f"), [pair("a", "1.0"), pair("b", "2")]);
    assert_eq!(variables("g"), [pair("a", "1.0"), pair("b", "mine")]);
}

#[test]
fn keys_that_nobody_knows_are_ignored() {
    let stack = parse("functions:\n  f: {image: a, registry_auth: b, platforms: c}\nnetwork: x\n").unwrap();
    assert_eq!(stack.functions["f"].image.as_deref(), Some("a"));
    assert!(parse("functions:\n  f:\n").is_ok());
}

#[test]
fn what_is_built_has_a_template() {
    let template = |text: &str| {
        parse(&format!("functions: {{f: {{{text}}}}}")).unwrap().functions["f"].template().map(str::to_owned)
    };
    assert_eq!(template("lang: rust-wasm").as_deref(), Some("rust-wasm"));
    for none in ["lang: Dockerfile", "lang: ''", "image: a", "lang: go, skip_build: true"] {
        assert_eq!(template(none), None, "{none}");
    }
    // The command line is the template's also where something else builds the image.
    for (text, expected) in [
        ("lang: go", Some("go")),
        ("lang: go, skip_build: true", Some("go")),
        ("lang: go, fprocess: ''", Some("go")),
        ("lang: go, fprocess: ./mine", None),
        ("lang: dockerfile", None),
        ("image: a", None),
    ] {
        let stack = parse(&format!("functions: {{f: {{{text}}}}}")).unwrap();
        assert_eq!(stack.functions["f"].process_template(), expected, "{text}");
    }
}

#[test]
fn mistakes_name_file_function_and_key() {
    for (text, expected) in [
        ("functions:\n  f:\n    environment: [a]\n", "stack.yml: functions.f.environment: "),
        ("functions:\n  f:\n    environment: [a]\n", "line 5"),
        ("functions:\n  f:\n    secrets: one\n", "functions.f.secrets"),
        (
            "functions:\n  f:\n    skip_build: perhaps\n",
            "functions.f.skip_build: \"perhaps\" is neither true nor false",
        ),
        ("functions:\n  f:\n    image: a\n    image: b\n", "duplicate"),
        ("functions:\n  f: {}\n  f: {}\n", "f is there twice"),
        ("functions:\n  Hello: {}\n", "functions.Hello: "),
        ("functions:\n  ../../etc: {}\n", "functions.../../etc: "),
        ("functions:\n  f: {namespace: A}\n", "functions.f: "),
        ("functions:\n  f: {limits: 12}\n", "functions.f.limits"),
        ("\tfunctions:", "stack.yml: "),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with("stack.yml: ") && error.contains(expected), "{text}: {error}");
    }
    for (text, expected) in [
        ("version: 2.0\nprovider: {name: openfaas}\n", "version is 2.0"),
        ("provider: {name: docker}\n", "provider.name is \"docker\""),
        ("", "provider.name is missing"),
    ] {
        let error = Stack::parse(Path::new("a.yml"), text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let stack = parse("functions: {f: {limits: {memory: 12MB}}}").unwrap();
    let error = stack.functions["f"].spec("f", "i".into(), None, &Additions::default()).unwrap_err();
    assert!(error.to_string().contains("limits.memory"), "{error}");
}

#[test]
fn an_alias_that_multiplies_is_refused() {
    let mut text = String::from("x0: &x0 {a: b}\n");
    for level in 1..40 {
        let below = level - 1;
        text += &format!("x{level}: &x{level} {{<<: [*x{below}, *x{below}]}}\n");
    }
    let error = parse(&format!("{text}functions: {{f: {{environment: *x39}}}}")).unwrap_err().to_string();
    assert!(error.contains("repetition limit"), "{error}");
}

#[test]
fn files_of_variables_and_the_command_line_add_to_a_function() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let files = [
        file("one.yml", "environment:\n  a: file\n  b: 2\n  c: file\n"),
        file("two.yml", "environment: {b: two, d: on}\n"),
    ];
    let stack = parse(&format!("functions:\n  f:\n    environment: {{a: own, z: own}}\n    secrets: [s]\n    labels: {{l: own}}\n    environment_file: {files:?}\n")).unwrap();
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let additions = Additions {
        namespace: "staging".into(),
        env: pairs(&[("c", "line")]),
        labels: pairs(&[("l", "line")]),
        annotations: pairs(&[("n", "line")]),
        secrets: vec!["s".into(), "t".into()],
    };
    let spec = stack.functions["f"].spec("f", "i".into(), None, &additions).unwrap();
    assert_eq!(
        spec.env_vars,
        pairs(&[("a", "file"), ("b", "two"), ("c", "line"), ("d", "on"), ("z", "own")])
    );
    assert_eq!(
        (&*spec.namespace, spec.labels, spec.annotations),
        ("staging", pairs(&[("l", "line")]), pairs(&[("n", "line")]))
    );
    assert_eq!(spec.secrets, ["s", "t"]);

    let missing = parse("functions: {f: {environment_file: [nowhere.yml]}}").unwrap();
    let error =
        missing.functions["f"].spec("f", "i".into(), None, &Additions::default()).unwrap_err().to_string();
    assert!(error.starts_with("nowhere.yml: it cannot be read"), "{error}");
}

#[test]
fn functions_are_picked_by_wildcard_or_by_expression() {
    let names = |filter, regex| -> Result<Vec<String>> {
        let stack = parse("functions: {api-one: {}, api-two: {}, web: {}}").unwrap();
        Ok(arguments(filter, regex).pick(stack)?.functions.into_keys().collect())
    };
    assert_eq!(names(None, None).unwrap().len(), 3);
    assert_eq!(names(Some("api-*"), None).unwrap(), ["api-one", "api-two"]);
    assert_eq!(names(Some("*e*"), None).unwrap(), ["api-one", "web"]);
    assert_eq!(names(None, Some("^(web|api-o)")).unwrap(), ["api-one", "web"]);
    for (filter, regex) in [(Some("api"), None), (None, Some("^x")), (None, Some("("))] {
        assert!(names(filter, regex).unwrap_err().is::<Mistakes>());
    }
    let empty = arguments(None, None).pick(parse("").unwrap()).unwrap_err().to_string();
    assert!(empty.contains("it has no functions"), "{empty}");
}

#[test]
fn a_wildcard_stands_for_anything() {
    for (pattern, name, expected) in [
        ("*", "", true),
        ("a", "a", true),
        ("a", "ab", false),
        ("a*", "a", true),
        ("*a", "ba", true),
        ("a*b*c", "axbxbc", true),
        ("a*b*c", "acb", false),
        ("ab*ba", "aba", false),
        ("", "a", false),
    ] {
        assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
    }
}

#[test]
fn a_file_has_a_bound_and_is_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stack.yml");
    for (bytes, expected) in [(vec![b'a'; MAX_FILE_BYTES + 1], "more than"), (vec![0xff], "UTF-8")] {
        std::fs::write(&path, bytes).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains(expected));
    }
    let address = read(Path::new("https://example.com/stack.yml")).unwrap_err().to_string();
    assert!(address.contains("download it"), "{address}");
}
