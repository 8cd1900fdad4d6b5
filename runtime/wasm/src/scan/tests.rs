use super::*;

fn refusal(wat: &str) -> String {
    let Err(Error::Invalid { code, message }) = scan(&wat::parse_str(wat).unwrap()) else {
        panic!("it is taken");
    };
    format!("{code}: {message}")
}

#[test]
fn a_refusal_names_the_limit_what_was_found_and_where() {
    let locals = format!("(module (func) (func (local {})))", "i32 ".repeat(21_000));
    let told = refusal(&locals);
    assert!(told.starts_with("compile-limit: "), "{told}");
    assert!(told.contains("body 1 has 21000 locals by byte 26, and at most 20000"), "{told}");

    let tables = format!("(module {})", "(table 1 funcref) ".repeat(101));
    let told = refusal(&tables);
    assert!(told.contains("it has 101 tables by byte") && told.contains("at most 100"), "{told}");
}

#[test]
fn what_lies_in_components_is_counted_together() {
    let module = format!("(core module {})", "(func) ".repeat(30_000));
    let told = refusal(&format!("(component {})", module.repeat(4)));
    assert!(told.contains("it has 120000 functions"), "{told}");
    let deep = (0..9).fold(String::new(), |inner, _| format!("(component {inner})"));
    assert!(refusal(&format!("(component {deep})")).contains("components in one another"));
    let wide = format!("(component {})", "(component) ".repeat(9));
    scan(&wat::parse_str(wide).unwrap()).unwrap();
}

#[test]
fn blocks_that_follow_each_other_are_not_nested() {
    let pairs =
        format!("(module (func {}))", "block end if end ".repeat(6000).replace("if", "i32.const 0 if"));
    scan(&wat::parse_str(pairs).unwrap()).unwrap();
    let nested = format!("(module (func {} {}))", "block ".repeat(5001), "end ".repeat(5001));
    assert!(refusal(&nested).contains("5001 nested blocks"));
}

#[test]
fn damage_is_told_apart() {
    let whole = wat::parse_str("(module (func (export \"_start\") nop))").unwrap();
    for cut in 9..whole.len() {
        if let Err(error) = scan(&whole[..cut]) {
            assert_eq!(error.code(), "malformed-module", "{cut}: {error}");
        }
    }
    assert!(limits().contains("tables=100"));
}
