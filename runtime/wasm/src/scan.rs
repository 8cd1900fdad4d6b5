//! The shape of a module, looked at before it is compiled: what is legal and of no use to a function, and takes a
//! compiler long, is refused by name. It holds nothing of the module in memory and reads it once.

use runtime_api::{Error, Result};
use wasmparser::{
    BinaryReaderError, ElementSectionReader, FunctionBody, Operator, Parser, Payload, RecGroup,
    SectionLimited,
};

/// One thing of which a module may have so many. Each limit is at least twice what the largest modules of real toolchains
/// have: a function of CPython has 427 KB and 781 blocks in one another, a program in Go 35,000 segments, and a Python
/// component 93 instances of 14 modules.
struct Limit {
    /// Of what, in the plural.
    things: &'static str,
    most: u64,
}

const fn limit(things: &'static str, most: u64) -> Limit {
    Limit { things, most }
}

const FUNCTIONS: Limit = limit("functions", 100_000);
const BODY_BYTES: Limit = limit("bytes of code", 2 << 20);
const LOCALS: Limit = limit("locals", 20_000);
const NESTING: Limit = limit("nested blocks", 5_000);
const PARAMS: Limit = limit("parameters", 100);
const RESULTS: Limit = limit("results", 100);
const TYPES: Limit = limit("types", 100_000);
const IMPORTS: Limit = limit("imports", 10_000);
const EXPORTS: Limit = limit("exports", 100_000);
const GLOBALS: Limit = limit("globals", 100_000);
const TABLES: Limit = limit("tables", 100);
const MEMORIES: Limit = limit("memories", 64);
const TAGS: Limit = limit("exception tags", 1_000);
const ELEMENTS: Limit = limit("elements of tables", 1_000_000);
const SEGMENTS: Limit = limit("segments of data", 100_000);
const DEPTH: Limit = limit("components in one another", 8);
const MODULES: Limit = limit("inner modules", 256);
const COMPONENTS: Limit = limit("inner components", 256);
const INSTANCES: Limit = limit("instances", 1_000);
/// Types, aliases, imports, exports, canonical functions and the like of components.
const DEFINITIONS: Limit = limit("definitions of a component", 20_000);

const ALL: [&Limit; 20] = [
    &FUNCTIONS,
    &BODY_BYTES,
    &LOCALS,
    &NESTING,
    &PARAMS,
    &RESULTS,
    &TYPES,
    &IMPORTS,
    &EXPORTS,
    &GLOBALS,
    &TABLES,
    &MEMORIES,
    &TAGS,
    &ELEMENTS,
    &SEGMENTS,
    &DEPTH,
    &MODULES,
    &COMPONENTS,
    &INSTANCES,
    &DEFINITIONS,
];

/// The limits in short: a rejection is remembered only while they are the same.
pub(crate) fn limits() -> String {
    ALL.iter().map(|limit| format!("{}={}", limit.things, limit.most)).collect::<Vec<_>>().join(" ")
}

/// Looks at the whole of a module or component.
///
/// # Errors
/// [`Error::Invalid`] `compile-limit`, which names the limit, what was found and where; `malformed-module`.
pub(crate) fn scan(bytes: &[u8]) -> Result<()> {
    let mut shape = Shape::default();
    for payload in Parser::new(0).parse_all(bytes) {
        shape.take(payload.map_err(Refusal::from)?)?;
    }
    Ok(())
}

/// What was counted so far, in all modules and components of the file together.
#[derive(Default)]
struct Shape {
    /// Components and modules that are open.
    depth: u64,
    functions: u64,
    /// Functions whose bodies were seen.
    bodies: u64,
    types: u64,
    imports: u64,
    exports: u64,
    globals: u64,
    tables: u64,
    memories: u64,
    tags: u64,
    elements: u64,
    segments: u64,
    modules: u64,
    components: u64,
    instances: u64,
    definitions: u64,
}

/// Why a module is refused, before it is put into words.
enum Refusal {
    Damaged(BinaryReaderError),
    TooMany { limit: &'static Limit, found: u64, at: usize, function: Option<u64> },
}

impl From<BinaryReaderError> for Refusal {
    fn from(error: BinaryReaderError) -> Self {
        Self::Damaged(error)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Damaged(error) => crate::inspect::damaged(error),
            Refusal::TooMany { limit: Limit { things, most }, found, at, function } => {
                // Imported functions have no body, so they are not among those counted here.
                let whose = function.map_or_else(|| "it".to_owned(), |index| format!("body {index}"));
                Self::invalid(
                    "compile-limit",
                    format!(
                        "the module cannot be compiled within the limits: {whose} has {found} {things} by byte {at}, and \
                         at most {most} are compiled; make it smaller, or split it"
                    ),
                )
            }
        }
    }
}

fn check(limit: &'static Limit, found: u64, at: usize) -> Result<(), Refusal> {
    if found > limit.most { Err(Refusal::TooMany { limit, found, at, function: None }) } else { Ok(()) }
}

/// Counts a section's things.
fn add<T>(sum: &mut u64, limit: &'static Limit, section: &SectionLimited<'_, T>) -> Result<(), Refusal> {
    *sum += u64::from(section.count());
    check(limit, *sum, section.original_position())
}

impl Shape {
    fn take(&mut self, payload: Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::ModuleSection { unchecked_range, .. } => {
                self.modules += 1;
                self.depth += 1;
                check(&MODULES, self.modules, unchecked_range.start)?;
                check(&DEPTH, self.depth, unchecked_range.start)
            }
            Payload::ComponentSection { unchecked_range, .. } => {
                self.components += 1;
                self.depth += 1;
                check(&COMPONENTS, self.components, unchecked_range.start)?;
                check(&DEPTH, self.depth, unchecked_range.start)
            }
            Payload::End(_) => {
                self.depth = self.depth.saturating_sub(1);
                Ok(())
            }
            Payload::TypeSection(section) => {
                add(&mut self.types, &TYPES, &section)?;
                signatures(section)
            }
            Payload::ImportSection(section) => add(&mut self.imports, &IMPORTS, &section),
            Payload::FunctionSection(section) => add(&mut self.functions, &FUNCTIONS, &section),
            Payload::TableSection(section) => add(&mut self.tables, &TABLES, &section),
            Payload::MemorySection(section) => add(&mut self.memories, &MEMORIES, &section),
            Payload::TagSection(section) => add(&mut self.tags, &TAGS, &section),
            Payload::GlobalSection(section) => add(&mut self.globals, &GLOBALS, &section),
            Payload::ExportSection(section) => add(&mut self.exports, &EXPORTS, &section),
            Payload::ElementSection(section) => self.elements(section),
            Payload::DataSection(section) => add(&mut self.segments, &SEGMENTS, &section),
            Payload::CodeSectionEntry(body) => self.body(&body),
            Payload::InstanceSection(section) => add(&mut self.instances, &INSTANCES, &section),
            Payload::ComponentInstanceSection(section) => add(&mut self.instances, &INSTANCES, &section),
            Payload::CoreTypeSection(section) => add(&mut self.definitions, &DEFINITIONS, &section),
            Payload::ComponentAliasSection(section) => add(&mut self.definitions, &DEFINITIONS, &section),
            Payload::ComponentTypeSection(section) => add(&mut self.definitions, &DEFINITIONS, &section),
            Payload::ComponentCanonicalSection(section) => add(&mut self.definitions, &DEFINITIONS, &section),
            Payload::ComponentImportSection(section) => add(&mut self.definitions, &DEFINITIONS, &section),
            Payload::ComponentExportSection(section) => add(&mut self.definitions, &DEFINITIONS, &section),
            _ => Ok(()),
        }
    }

    fn elements(&mut self, section: ElementSectionReader<'_>) -> Result<(), Refusal> {
        for element in section {
            let element = element?;
            let (items, at) = match &element.items {
                wasmparser::ElementItems::Functions(items) => (items.count(), items.original_position()),
                wasmparser::ElementItems::Expressions(_, items) => (items.count(), items.original_position()),
            };
            // An empty segment is one, too.
            self.elements += u64::from(items).max(1);
            check(&ELEMENTS, self.elements, at)?;
        }
        Ok(())
    }

    fn body(&mut self, body: &FunctionBody<'_>) -> Result<(), Refusal> {
        let function = self.bodies;
        self.bodies += 1;
        check_body(body).map_err(|refusal| match refusal {
            Refusal::TooMany { limit, found, at, .. } => {
                Refusal::TooMany { limit, found, at, function: Some(function) }
            }
            damaged => damaged,
        })
    }
}

/// Parameters and results of each type of function.
fn signatures(section: SectionLimited<'_, RecGroup>) -> Result<(), Refusal> {
    for group in section.into_iter_with_offsets() {
        let (at, group) = group?;
        for kind in group.types() {
            if let wasmparser::CompositeInnerType::Func(function) = &kind.composite_type.inner {
                check(&PARAMS, function.params().len() as u64, at)?;
                check(&RESULTS, function.results().len() as u64, at)?;
            }
        }
    }
    Ok(())
}

fn check_body(body: &FunctionBody<'_>) -> Result<(), Refusal> {
    let range = body.range();
    check(&BODY_BYTES, range.len() as u64, range.start)?;
    let mut locals = 0;
    for group in body.get_locals_reader()? {
        locals += u64::from(group?.0);
        check(&LOCALS, locals, range.start)?;
    }
    let mut operators = body.get_operators_reader()?;
    let mut open = 0_u64;
    while !operators.eof() {
        let at = operators.original_position();
        match operators.read()? {
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::Try { .. }
            | Operator::TryTable { .. } => {
                open += 1;
                check(&NESTING, open, at)?;
            }
            Operator::End | Operator::Delegate { .. } => open = open.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
