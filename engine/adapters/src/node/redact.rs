//! Takes secrets and users' paths out of texts before they leave the node.
//!
//! Literal texts and no patterns: what is taken out can be read off the configuration. It errs on the side of taking
//! out too much, and what was taken out is counted, so that a reader knows.

use super::config::Redact;

/// What stands in the place of what was taken out.
const GONE: &str = "[redacted]";
/// Begin and end of a private key.
const KEY_BEGIN: &str = "-----BEGIN";
const KEY_END: &str = "-----END";

/// Takes everything out that the configuration names. Returns the text and how often something was taken out.
pub(super) fn redact(text: &str, rules: &Redact) -> (String, usize) {
    let keys: Vec<String> = rules.keys.iter().map(|k| k.to_ascii_lowercase()).collect();
    let mut out = String::with_capacity(text.len());
    let mut count = 0;
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        let (body, end) = match line.strip_suffix('\n') {
            Some(body) => (body, "\n"),
            None => (line, ""),
        };
        if in_key || (body.contains(KEY_BEGIN) && body.contains("PRIVATE KEY")) {
            in_key = !body.contains(KEY_END);
            out.push_str(GONE);
            count += 1;
        } else {
            let (body, n) = values(body, &keys);
            let (body, m) = words(&body, rules);
            count += n + m;
            out.push_str(&body);
        }
        out.push_str(end);
    }
    for secret in rules.texts.iter().filter(|t| !t.is_empty()) {
        let n = out.matches(secret.as_str()).count();
        if n > 0 {
            out = out.replace(secret.as_str(), GONE);
            count += n;
        }
    }
    (out, count)
}

fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-.".contains(c)
}

/// Takes out the values of names that hold one of the keys: `NAME=value`, `name: value`, `"name": "value"`,
/// `--name value`, `<name>value<`.
fn values(line: &str, keys: &[String]) -> (String, usize) {
    let mut out = String::new();
    let mut count = 0;
    let mut rest = line;
    while let Some(start) = rest.find(in_name) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|c| !in_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        out.push_str(name);
        rest = after;
        let lower = name.to_ascii_lowercase();
        if !keys.iter().any(|k| lower.contains(k.as_str())) {
            continue;
        }
        let Some(gap) = gap(after, name.starts_with('-')) else { continue };
        let (between, value) = after.split_at(gap);
        out.push_str(between);
        let taken = value_end(value, between.chars().next_back());
        if taken > 0 {
            out.push_str(GONE);
            count += 1;
        }
        rest = &value[taken..];
    }
    out.push_str(rest);
    (out, count)
}

/// Returns where the value after a name begins; nothing where none follows.
fn gap(after: &str, is_option: bool) -> Option<usize> {
    let rest = after.trim_start_matches(['"', '\'', ' ', '\t']);
    let signed = rest.strip_prefix([':', '=', '>']);
    let value = match signed {
        Some(value) => value,
        // `--token abc`: a blank is enough. Not in a text, where the next word is just a word.
        None if is_option && after.starts_with([' ', '\t']) => rest,
        None => return None,
    };
    let value = value.trim_start_matches([' ', '\t']);
    let value = value.strip_prefix(['"', '\'']).unwrap_or(value);
    Some(after.len() - value.len())
}

/// Returns where the value ends: at its closing quote, else at the next blank; with the word behind `Bearer`.
fn value_end(value: &str, before: Option<char>) -> usize {
    if let Some(quote @ ('"' | '\'')) = before {
        return value.find(quote).unwrap_or(value.len());
    }
    let stop = |c: char| c.is_whitespace() || ",;<\"'&)}]".contains(c);
    let end = value.find(stop).unwrap_or(value.len());
    let scheme = &value[..end];
    if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("basic") {
        let rest = value[end..].trim_start();
        let skipped = value.len() - rest.len();
        return skipped + rest.find(stop).unwrap_or(rest.len());
    }
    end
}

/// Takes out words that look like well-known tokens, and what lies below the homes of users.
fn words(line: &str, rules: &Redact) -> (String, usize) {
    let stop = |c: char| c.is_whitespace() || "\"'<>,;=()[]{}|".contains(c);
    let mut out = String::new();
    let mut count = 0;
    let mut rest = line;
    while !rest.is_empty() {
        let end = rest.find(stop).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        match cut(word, rules) {
            Some(keep) => {
                out.push_str(&word[..keep]);
                out.push_str(GONE);
                count += 1;
            }
            None => out.push_str(word),
        }
        let next = after.chars().next().map_or(0, char::len_utf8);
        out.push_str(&after[..next]);
        rest = &after[next..];
    }
    (out, count)
}

/// Returns how much of the beginning of a word may stay; nothing where all of it may.
fn cut(word: &str, rules: &Redact) -> Option<usize> {
    let lower = word.to_ascii_lowercase();
    // Short words such as `sk-1` are no tokens; a false alarm would only cost readability.
    let token = |p: &&String| word.len() >= p.len() + 8 && lower.starts_with(&p.to_ascii_lowercase());
    if rules.prefixes.iter().any(|p| token(&p)) {
        return Some(0);
    }
    for home in &rules.homes {
        let below = format!("{}/", home.trim_end_matches('/'));
        if let Some(at) = word.find(&below)
            && word.len() > at + below.len()
        {
            return Some(at + below.len());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> String {
        redact(text, &Redact::default()).0
    }

    #[test]
    fn values_of_secrets_are_taken_out_in_every_form() {
        for (before, after) in [
            ("DB_PASSWORD=hunter2 next", "DB_PASSWORD=[redacted] next"),
            ("env WANDB_API_KEY='a b' x", "env WANDB_API_KEY='[redacted]' x"),
            ("{\"client_secret\": \"s3 cr\", \"id\": 4}", "{\"client_secret\": \"[redacted]\", \"id\": 4}"),
            ("python3 train.py --token abc --lr 3", "python3 train.py --token [redacted] --lr 3"),
            ("python3 train.py --token=abc --lr 3", "python3 train.py --token=[redacted] --lr 3"),
            ("<auth_token>xyz</auth_token>", "<auth_token>[redacted]</auth_token>"),
            ("Authorization: Bearer abc.def.ghi", "Authorization: [redacted]"),
            ("url?token=1&b=2", "url?token=[redacted]&b=2"),
            ("a token was lost; secret service", "a token was lost; secret service"),
            ("password:", "password:"),
            ("NVRM: Xid (PCI:0000:52:00): 48, pid=12", "NVRM: Xid (PCI:0000:52:00): 48, pid=12"),
        ] {
            assert_eq!(one(before), after, "{before}");
        }
    }

    #[test]
    fn tokens_homes_and_keys_are_taken_out_wherever_they_are() {
        for (before, after) in [
            ("git clone ghp_0123456789abcdef", "git clone [redacted]"),
            ("job in /home/alice/secret-project/run.py, x", "job in /home/[redacted], x"),
            ("cwd=\"/users/bob\"", "cwd=\"/users/[redacted]\""),
            ("mounted on /home type nfs", "mounted on /home type nfs"),
            ("sk-1 sku eye", "sk-1 sku eye"),
        ] {
            assert_eq!(one(before), after, "{before}");
        }
        let key = "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nxyz\n-----END RSA PRIVATE KEY-----\nb\n";
        let (text, n) = redact(key, &Redact::default());
        assert!(!text.contains("MIIE") && text.starts_with("a\n") && text.ends_with("\nb\n"), "{text}");
        assert_eq!(n, 4);
        let rules = Redact { texts: vec!["project-x".to_owned()], ..Redact::default() };
        assert_eq!(
            redact("in project-x and project-x2", &rules),
            ("in [redacted] and [redacted]2".to_owned(), 2)
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_fail_and_nothing_else_is_lost(text in "(token|=|:| |\"|'|<|>|/home/|é|--|\n|x){0,40}") {
            let none = Redact { keys: vec![], prefixes: vec![], homes: vec![], texts: vec![] };
            proptest::prop_assert_eq!(redact(&text, &none), (text.clone(), 0));
            let (out, n) = redact(&text, &Redact::default());
            proptest::prop_assert_eq!(out.matches(GONE).count(), n);
        }
    }
}
