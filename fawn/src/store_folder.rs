//! A packed function store on this machine's disk: `functions.json`, and the images in the layout `images`.

use std::path::{Path, PathBuf};

use gateway_server::FunctionStore;

/// The image layout of a store.
const IMAGES: &str = "images";

/// The store's list; `None` only after a mistake.
pub(crate) fn open(folder: &Path, mistakes: &mut Vec<String>) -> Option<FunctionStore> {
    FunctionStore::open(folder).map_err(|error| mistakes.push(format!("store: {error}"))).ok()
}

/// The folders that images are looked for in. The store's comes first, so that its images are what its list means.
pub(crate) fn with_images(
    store: Option<&Path>,
    others: Vec<PathBuf>,
    mistakes: &mut Vec<String>,
) -> Vec<PathBuf> {
    let Some(folder) = store else { return others };
    let images = folder.join(IMAGES);
    if !images.join("index.json").is_file() {
        let images = images.display();
        mistakes.push(format!(
            "store: {images} is no OCI image layout: `fawn push FILE oci:{images}:NAME` makes one"
        ));
    }
    [folder.to_owned()].into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_no_store_is_told_with_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let said = |folder: &Path| {
            let mut mistakes = Vec::new();
            let is_open = open(folder, &mut mistakes).is_some();
            let folders = with_images(Some(folder), vec!["/other".into()], &mut mistakes);
            assert_eq!(folders, [folder, Path::new("/other")]);
            (is_open, mistakes)
        };
        let (_, mistakes) = said(folder.path());
        assert!(mistakes[0].contains("functions.json: there is no such file"), "{mistakes:?}");
        assert!(mistakes[1].contains("images is no OCI image layout: `fawn push"), "{mistakes:?}");
        fs::write(folder.path().join("functions.json"), r#"{"functions":[]}"#).unwrap();
        fs::create_dir(folder.path().join(IMAGES)).unwrap();
        fs::write(folder.path().join("images/index.json"), "{}").unwrap();
        assert_eq!(said(folder.path()), (true, Vec::new()));
        assert_eq!(with_images(None, Vec::new(), &mut Vec::new()), Vec::<PathBuf>::new());
    }
}
