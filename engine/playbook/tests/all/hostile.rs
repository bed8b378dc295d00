//! Texts that somebody made to hurt: refused with a code, in bounded work, without a panic.

use crate::GOOD;
use engine_playbook::{MAX_BYTES, Style, codes, format, load, render_diagnostics};
use proptest::prelude::*;

/// Loads, renders in every style and formats; returns the codes.
fn codes_of(bytes: &[u8]) -> Vec<String> {
    let l = load(bytes, "hostile.yaml");
    for style in [Style::Colour, Style::Plain, Style::Narrated] {
        let text = render_diagnostics(&l.diagnostics, &l.source, style);
        assert!(text.len() <= 1000 + 4000 * l.diagnostics.len(), "{} bytes of output", text.len());
        if style != Style::Colour {
            assert!(!text.contains('\u{1b}'), "an escape sequence came through");
        }
    }
    let _ = format::format(bytes, "hostile.yaml");
    let _ = engine_playbook::fix(bytes);
    assert_eq!(l.playbook.is_some(), !l.failed());
    l.diagnostics.into_iter().map(|d| d.code).collect()
}

#[test]
fn hostile_documents_are_refused_with_a_code() {
    let megabyte = vec![b'a'; 1 << 20];
    assert_eq!(codes_of(&megabyte), [codes::TOO_LARGE]);
    assert_eq!(codes_of(&vec![b'['; MAX_BYTES + 1]), [codes::TOO_LARGE]);
    for open in ["[", "{", "- ", "? ", "{a: ", "- - ", "!!x ", "&a [", "a:\n "] {
        let text = open.repeat(200_000 / open.len());
        let found = codes_of(text.as_bytes());
        assert!(!found.is_empty(), "{open}");
    }
    assert_eq!(codes_of("[".repeat(200_000).as_bytes()), [codes::TOO_DEEP]);
    let mut bomb = "a0: &a0 [x]\n".to_owned();
    for i in 1..10 {
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", ")));
    }
    assert!(codes_of(bomb.as_bytes()).contains(&codes::ALIAS.to_owned()));
    let many = format!("fault: [{}]\n", "x,".repeat(100_000));
    assert!(codes_of(many.as_bytes()).contains(&codes::TOO_DEEP.to_owned()));
    let keys: Vec<String> = (0..4000).map(|i| format!("k{i}: 1\n")).collect();
    let keys = keys.concat();
    assert!(codes_of(keys.as_bytes()).contains(&codes::UNKNOWN_FIELD.to_owned()));
    let escape = GOOD.replace("Reset a GPU", "Reset\u{1b}[2J a GPU");
    assert_eq!(codes_of(escape.as_bytes()), [codes::BAD_TEXT]);
    let long = GOOD.replace("active_jobs == 0", &format!("active_jobs == {}", "0".repeat(200_000)));
    assert_eq!(codes_of(long.as_bytes()), [codes::BAD_LENGTH]);
    let parens = GOOD.replace("active_jobs == 0", &format!("{}1", "(".repeat(1900)));
    assert_eq!(codes_of(parens.as_bytes()), ["CN0001"]);
    let templates = GOOD.replace("{{ alert.id }}", &"{{ alert.id }}".repeat(10_000));
    assert_eq!(codes_of(templates.as_bytes()), [codes::TEMPLATE_SYNTAX]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        codes_of(&bytes);
    }

    #[test]
    fn yaml_like_texts_never_panic(text in "[a-c:\\-?\\[\\]{}&*!|>'\"%@`#, \n\t.0-9é]{0,120}") {
        codes_of(text.as_bytes());
    }

    #[test]
    fn a_damaged_playbook_never_panics(at in 0..GOOD.len(), len in 0_usize..12, put in "[a-z:\\-\\[\\]{}'\"|> \n#&*(){%é]{0,8}") {
        let end = (at + len).min(GOOD.len());
        let text = format!("{}{put}{}", &GOOD[..at], &GOOD[end..]);
        codes_of(text.as_bytes());
    }

    #[test]
    fn templates_never_panic(text in "[{}%#a-z._|'\"() ]{0,60}") {
        let params = std::collections::BTreeMap::new();
        let _ = engine_playbook::template::check(&text, engine_playbook::template::Names { params: &params, gpu: true });
        let facts = engine_core::fact::FactSet::default();
        let _ = engine_core::plan::Render::render(&engine_playbook::Renderer::new(), &text, &facts);
    }
}
