//! Values as Go's YAML library reads them into text, which is what users of stack files know.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    marker::PhantomData,
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

/// The key that brings in what other maps have (YAML 1.1, "merge").
const MERGE: &str = "<<";

/// A map with no key twice, into which others may be merged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Map<T>(pub(crate) BTreeMap<String, T>);

/// What a merge key brings in: one map or several, of which earlier ones win.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mixed<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Map<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MapVisitor(PhantomData))
    }
}

struct MapVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for MapVisitor<T> {
    type Value = Map<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Map<T>, A::Error> {
        let (mut found, mut inherited) = (BTreeMap::new(), Vec::new());
        while let Some(key) = access.next_key::<String>()? {
            if key == MERGE {
                inherited.extend(access.next_value::<Mixed<Map<T>>>()?.0);
                continue;
            }
            match found.entry(key) {
                Entry::Vacant(place) => drop(place.insert(access.next_value()?)),
                Entry::Occupied(there) => {
                    return Err(A::Error::custom(format_args!("{} is there twice", there.key())));
                }
            }
        }
        for (key, value) in inherited.into_iter().flat_map(|map| map.0) {
            found.entry(key).or_insert(value);
        }
        Ok(Map(found))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Mixed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MixedVisitor(PhantomData))
    }
}

struct MixedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for MixedVisitor<T> {
    type Value = Mixed<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map, or a list of maps")
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Mixed<T>, A::Error> {
        Ok(Mixed(vec![T::deserialize(MapAccessDeserializer::new(access))?]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Mixed<T>, A::Error> {
        let mut maps = Vec::new();
        while let Some(map) = access.next_element()? {
            maps.push(map);
        }
        Ok(Mixed(maps))
    }
}

/// `yes`, `on` and the like are true as well (YAML 1.1), where true or false is wanted.
pub(super) fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    Ok(Option::<Truth>::deserialize(deserializer)?.map(|Truth(truth)| truth))
}

struct Truth(bool);

impl<'de> Deserialize<'de> for Truth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TruthVisitor)
    }
}

/// Errors that come from a visitor are told with the key.
struct TruthVisitor;

impl Visitor<'_> for TruthVisitor {
    type Value = Truth;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Truth, E> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Ok(Truth(true)),
            "false" | "no" | "off" | "n" => Ok(Truth(false)),
            _ => Err(E::custom(format_args!("{text:?} is neither true nor false"))),
        }
    }
}
