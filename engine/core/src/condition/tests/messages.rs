//! What is said about each mistake: code, place and help.

use super::super::codes::CODES;
use super::{Scope, compile, scope};
use crate::vocabulary::FACTS;

/// Source with the places of the errors between `<<` and `>>`; for each its code and a piece of its help.
const TABLE: &[(&str, &[(&str, &str)])] = &[
    ("", &[("CN0008", "active_jobs == 0")]),
    ("  \n", &[("CN0008", "active_jobs == 0")]),
    // Names and words.
    ("<<node.sate>> == IDLE", &[("CN0011", "did you mean `node.state`?")]),
    ("<<state>> == IDLE", &[("CN0011", "did you mean `node.state`?")]),
    ("<<idle_wait>> < 5m", &[("CN0011", "did you mean `params.idle_wait`?")]),
    ("<<banana>>", &[("CN0011", "slurmedic facts")]),
    ("<<active_job>> == 0", &[("CN0011", "did you mean `active_jobs`?")]),
    ("alert.age < <<params.max_ages>>", &[("CN0012", "did you mean `params.max_age`?")]),
    ("alert.age < <<params.zzzzzzzz>>", &[("CN0012", "declared are")]),
    ("node.state in [IDLE, <<COMPLETNG>>]", &[("CN0014", "did you mean COMPLETING?")]),
    ("node.state == <<idle>>", &[("CN0014", "did you mean IDLE?")]),
    ("node.state == <<XYZZY>>", &[("CN0014", "the words are IDLE, MIXED")]),
    ("<<IDLE>>", &[("CN0015", "node.state == IDLE")]),
    ("node.name == <<gpu017>>", &[("CN0015", "'gpu017'")]),
    ("active_jobs == <<IDLE>>", &[("CN0015", "with an int")]),
    ("node.responding == <<yes>>", &[("CN0015", "true or false")]),
    ("node.name == <<node_name>>", &[("CN0015", "'node_name'; or did you mean the fact `node.name`?")]),
    ("node.state != <<UNKNOWN>>", &[("CN0024", "node.state is unknown")]),
    ("node.state in [IDLE, <<UNKNOWN>>]", &[("CN0024", "node.state is known")]),
    ("gpu.xid == <<none>>", &[("CN0021", "is known")]),
    ("<<null>> != node.reason", &[("CN0021", "is unknown")]),
    ("node.state == <<unknown>>", &[("CN0021", "is unknown")]),
    // Types.
    ("active_jobs == <<'0'>>", &[("CN0016", "without quotes: 0")]),
    ("active_jobs == <<0.5>>", &[("CN0016", "whole number")]),
    ("active_jobs == <<true>>", &[("CN0016", "a number")]),
    ("gpu.temperature < <<5m>>", &[("CN0016", "5m is none")]),
    ("alert.age < <<300>>", &[("CN0016", "`300s`")]),
    ("node.responding == <<1>>", &[("CN0016", "true or false")]),
    ("node.state == <<'IDLE'>>", &[("CN0016", "without quotes: IDLE")]),
    ("node.state == <<'IDEL'>>", &[("CN0016", "did you mean the word IDLE, without quotes?")]),
    ("node.name == <<17>>", &[("CN0016", "'17'")]),
    ("slurm.version >= <<23.02>>", &[("CN0016", "'23.02'")]),
    ("slurm.version >= <<23.02.1>>", &[("CN0005", "'23.02.1'")]),
    ("slurm.version >= <<'v23'>>", &[("CN0023", "'23.02'")]),
    ("<<active_jobs == node.name>>", &[("CN0016", "same type")]),
    ("<<node.state == gpu.health>>", &[("CN0016", "same type")]),
    ("<<node.name == node.features>>", &[("CN0016", "`node.name in node.features`")]),
    ("<<node.features == node.partitions>>", &[("CN0016", "items with `in`")]),
    ("node.features == <<'gpu'>>", &[("CN0016", "in node.features")]),
    ("<<active_jobs in node.features>>", &[("CN0016", "a text")]),
    ("<<node.features>> in ['a']", &[("CN0016", "one item")]),
    ("<<(active_jobs == 0)>> == true", &[("CN0016", "`== true`")]),
    ("<<node.state < DRAINED>>", &[("CN0017", "node.state in [...]")]),
    ("<<node.name >= 'a'>>", &[("CN0017", "== or !=")]),
    ("<<node.responding > false>>", &[("CN0017", "== or !=")]),
    ("'gpu' in <<node.name>>", &[("CN0018", "a piece of a text")]),
    ("node.name in <<'gpu017'>>", &[("CN0018", "write a list")]),
    ("<<active_jobs>>", &[("CN0019", "active_jobs == 0")]),
    ("not <<node.name>>", &[("CN0019", "== 'text'")]),
    ("<<node.state>> or node.responding", &[("CN0019", "node.state == IDLE")]),
    ("<<node.features>>", &[("CN0019", "in node.features")]),
    ("<<5>>", &[("CN0019", "compare it")]),
    ("<<[IDLE]>>", &[("CN0019", "node.state in")]),
    // Constants.
    ("<<true>>", &[("CN0020", "take it out")]),
    ("active_jobs == 0 or <<true>>", &[("CN0020", "take it out")]),
    ("<<1 == 1>>", &[("CN0020", "a fact")]),
    ("<<active_jobs == active_jobs>>", &[("CN0020", "same fact")]),
    ("<<'a' in ['a']>>", &[("CN0020", "before `in`")]),
    ("<<5 is known>>", &[("CN0020", "ask about a fact")]),
    // Lists.
    ("node.state in <<[]>>", &[("CN0025", "at least one")]),
    ("node.name in [<<params.node>>, 'b']", &[("CN0025", "joined by `or`")]),
    ("node.state in [<<[IDLE]>>]", &[("CN0025", "values")]),
    ("<<[1]>> == active_jobs", &[("CN0025", "ask for an item")]),
    // `is`.
    ("node.state is <<IDLE>>", &[("CN0022", "== IDLE")]),
    ("gpu.xid is not <<none>>", &[("CN0022", "is unknown")]),
    ("gpu.xid is <<defined>>", &[("CN0022", "is known")]),
    ("gpu.xid <<is>>", &[("CN0022", "is known")]),
    ("<<(node.responding and dcgm.up)>> is known", &[("CN0022", "each fact")]),
    // Other languages.
    ("active_jobs <<=>> 0", &[("CN0006", "`==`")]),
    ("node.responding <<&&>> dcgm.up", &[("CN0006", "`and`")]),
    ("node.responding <<||>> <<!>>dcgm.up", &[("CN0006", "`or`"), ("CN0006", "`not`")]),
    ("active_jobs <<===>> 0 <<AND>> dcgm.up", &[("CN0006", "`==`"), ("CN0006", "`and`")]),
    ("dcgm.up == <<True>>", &[("CN0006", "`true`")]),
    ("active_jobs <<\u{2264}>> 0", &[("CN0006", "`<=`")]),
    ("active_jobs <<=>>> 0", &[("CN0006", "`>=`")]),
    ("active_jobs <<+>> 1 == 1", &[("CN0007", "finished value")]),
    ("active_jobs <<|>> int == 0 and dcgm.up", &[("CN0007", "itself")]),
    ("<<len>>(node.features) > 0", &[("CN0007", "itself")]),
    ("<<node.features>>[0] == 'a'", &[("CN0007", "'gpu' in node.features")]),
    ("<<{{>> active_jobs }} == 0", &[("CN0007", "name alone")]),
    // Shape.
    ("1 < gpus.found <<<>> 8", &[("CN0010", "and")]),
    ("active_jobs == gpus.found <<is>> known", &[("CN0010", "and")]),
    ("<<(>>active_jobs == 0", &[("CN0009", "`)`")]),
    ("active_jobs == 0<<)>>", &[("CN0009", "take it out")]),
    ("<<(>>active_jobs == 0]", &[("CN0009", "`)`")]),
    ("(node.state in <<[>>IDLE)", &[("CN0009", "`]`")]),
    ("active_jobs == <<and>> dcgm.up", &[("CN0008", "compares a fact")]),
    ("active_jobs ==<<>>", &[("CN0008", "compares a fact")]),
    ("dcgm.up <<node.responding>>", &[("CN0008", "`and` or `or`")]),
    ("node.state in [IDLE <<MIXED>>]", &[("CN0008", "")]),
    // Characters.
    ("node.name == <<\u{2018}gpu017\u{2019}>>", &[("CN0002", "straight quotes")]),
    ("active_jobs<<\u{a0}>>== 0", &[("CN0002", "plain space")]),
    ("<<$active_jobs>> == 0", &[("CN0002", "")]),
    ("<<node..state>> == IDLE", &[("CN0002", "node.state")]),
    ("gpu.temperature < <<.5>>", &[("CN0002", "0.5")]),
    ("node.name == <<'gpu>>", &[("CN0003", "close it")]),
    ("node.name == 'C:<<\\d>>isk'", &[("CN0004", "backslash")]),
    ("node.name == '<<\\u>>12'", &[("CN0004", "backslash")]),
    ("node.name == '<<\\ud800\\u0041>>'", &[("CN0004", "backslash")]),
    ("node.name == 'a<<\u{7}>>b'", &[("CN0002", "\\u0007")]),
    ("active_jobs == <<007>>", &[("CN0005", "leading zeros")]),
    ("active_jobs == <<0x10>>", &[("CN0005", "90s")]),
    ("active_jobs == <<1_000>>", &[("CN0005", "")]),
    ("active_jobs == <<9223372036854775808>>", &[("CN0005", "between")]),
    ("gpu.power < <<1e999>>", &[("CN0005", "between")]),
    ("alert.age < <<5x>>", &[("CN0005", "1h30m")]),
    ("alert.age < <<-5m>>", &[("CN0005", "no sign")]),
    // Several mistakes in one pass.
    (
        "node.state in [IDLE, <<COMPLETNG>>] and active_jobs <<=>> <<'0'>> <<&&>> <<node.sate>> == IDLE",
        &[("CN0014", ""), ("CN0006", ""), ("CN0016", ""), ("CN0006", ""), ("CN0011", "")],
    ),
    (
        "(active_jobs == <<>>) or not <<gpu.xid>> or (dcgm.up <<1>>) and <<slurm.versoin>> < '1'",
        &[("CN0008", ""), ("CN0019", ""), ("CN0008", ""), ("CN0011", "")],
    ),
];

/// Takes the marks out of a source and returns their places. `<<<>>` marks `<`, and so on.
fn unmark(marked: &str) -> (String, Vec<(usize, usize)>) {
    let mut source = String::new();
    let mut places = Vec::new();
    let mut rest = marked;
    while let Some(at) = rest.find("<<") {
        source.push_str(&rest[..at]);
        let start = source.len();
        let body = &rest[at + 2..];
        let mut end = body.find(">>").expect("marks come in pairs");
        while body[end + 2..].starts_with('>') {
            end += 1;
        }
        source.push_str(&body[..end]);
        places.push((start, source.len()));
        rest = &body[end + 2..];
    }
    source.push_str(rest);
    (source, places)
}

#[test]
fn each_mistake_has_its_code_place_and_help() {
    let scope = scope();
    let mut wrong = Vec::new();
    for (marked, expected) in TABLE {
        let (source, mut places) = unmark(marked);
        if places.is_empty() {
            // An empty condition: the place is its end.
            places.push((source.len(), source.len()));
        }
        let found = compile(&source, &scope).expect_err(marked);
        let fits = found.len() == expected.len()
            && found.iter().zip(&places).zip(*expected).all(|((d, place), (code, help))| {
                let span = d.labels[0].span;
                // A place without text is where something is missing: only its start counts.
                let at = span.start == place.0 && (span.end == place.1 || place.0 == place.1);
                d.code == *code && at && d.help.as_deref().is_some_and(|h| h.contains(help))
            });
        if !fits {
            let said: Vec<_> = found
                .iter()
                .map(|d| format!("{} {:?} {} / {:?}", d.code, d.labels[0].span, d.message, d.help))
                .collect();
            wrong.push(format!("{marked}\n    wanted {expected:?} at {places:?}\n    found  {said:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_code_but_the_one_for_size_and_gpus_is_in_the_table() {
    for (code, ..) in CODES.iter().filter(|(c, ..)| !["CN0001", "CN0013"].contains(c)) {
        assert!(TABLE.iter().any(|(_, expected)| expected.iter().any(|(c, _)| c == code)), "{code}");
    }
}

#[test]
fn the_examples_of_the_explanations_are_what_they_say() {
    let scope =
        scope().with_param("first", crate::value::Type::Text).with_param("second", crate::value::Type::Text);
    for (code, _, text) in CODES {
        let (_, examples) = text.split_once("\n\nbad:  ").expect(code);
        let (bad, good) = examples.split_once("\ngood: ").expect(code);
        let (bad_scope, bad, good) = if *code == "CN0013" {
            let strip = |s: &'static str| s.split_once("with ").expect(code).1;
            (scope.clone().without_gpu(), strip(bad), strip(good))
        } else {
            (scope.clone(), bad, good)
        };
        let found = compile(bad, &bad_scope).expect_err(code);
        assert!(found.iter().any(|d| d.code == *code), "{code}: {bad}: {found:#?}");
        assert!(compile(good, &scope).is_ok(), "{code}: {good}");
    }
}

#[test]
fn facts_of_a_gpu_need_a_gpu() {
    let node = Scope::new(FACTS).without_gpu();
    let found = compile("active_jobs == 0 and gpu.xid == 0", &node).unwrap_err();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].code.as_str(), found[0].labels[0].span.start), ("CN0013", 21));
    assert!(found[0].help.as_deref().is_some_and(|h| h.contains("target: gpu")));
    assert!(compile("active_jobs == 0", &node).is_ok());
    // Nor are they offered.
    let found = compile("gpu.xdi == 0", &node).unwrap_err();
    assert!(found[0].help.as_deref().is_some_and(|h| !h.contains("gpu.xid")), "{found:?}");
}

#[test]
fn no_declared_fact_is_also_a_word_or_a_keyword() {
    use crate::value::Type;
    for f in FACTS {
        for part in ["and", "or", "not", "in", "is", "true", "false", "known", "unknown", "none", "null"] {
            assert_ne!(f.name, part);
        }
        if let Type::Enum(set) | Type::EnumList(set) = f.ty {
            for (word, _) in set.words {
                assert!(FACTS.iter().all(|g| g.name != *word), "{word} is a fact and a word");
                // Every word but the one for unknown can be written.
                let source = format!("{} == {word}", f.name);
                let says = compile(&source, &Scope::new(FACTS));
                assert_eq!(says.is_ok(), *word != "UNKNOWN", "{source}: {says:?}");
            }
        }
    }
}
