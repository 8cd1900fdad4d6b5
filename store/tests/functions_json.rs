//! `functions.json` lists what is in `functions/`, in the form that faas-cli reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde::Deserialize;

const LIST: &str = include_str!("../functions.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Store {
    version: String,
    functions: Vec<Function>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "a field that is only read has a type that is checked")]
struct Function {
    title: String,
    name: String,
    author: String,
    description: String,
    icon: String,
    fprocess: String,
    #[serde(rename = "repo_url")]
    repo_url: String,
    read_only_root_filesystem: Option<bool>,
    environment: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    images: BTreeMap<String, String>,
}

#[test]
fn every_function_has_its_folder_and_its_entry() {
    let folders = fs::read_dir("functions").unwrap();
    let folders: BTreeSet<_> =
        folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let names: Vec<_> = serde_json::from_str::<Store>(LIST)
        .unwrap()
        .functions
        .into_iter()
        .map(|function| function.name)
        .collect();
    assert_eq!(folders, names.iter().cloned().collect());
    assert_eq!(folders.len(), names.len(), "a name is there twice: {names:?}");
}

#[test]
fn entries_are_whole() {
    let Store { version, functions } = serde_json::from_str(LIST).unwrap();
    assert_eq!(version, "0.2.0");
    for Function { title, name, author, description, repo_url, images, .. } in functions {
        assert!(![&title, &author, &description].iter().any(|text| text.is_empty()), "{name}");
        assert_eq!(repo_url, format!("store/functions/{name}"));
        // A module suits every platform.
        let image = format!("oci:images:{name}");
        let expected = ["arm64", "armhf", "x86_64"].map(|platform| (platform.to_owned(), image.clone()));
        assert_eq!(images, BTreeMap::from(expected));
    }
}
