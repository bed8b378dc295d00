//! The codes of the condition language, with what `slurmedic explain` says about each.

macro_rules! codes {
    ($( $(#[doc = $doc:literal])* $name:ident = $code:literal, $title:literal, $text:literal; )*) => {
        $( $(#[doc = $doc])* pub(super) const $name: &str = $code; )*

        /// Every code of the condition language: code, title, explanation.
        pub static CODES: &[(&str, &str, &str)] = &[ $( ($code, $title, $text), )* ];
    };
}

codes! {
    TOO_LARGE = "CN0001", "condition too large",
        "A condition is at most 4 KiB long, nested at most 32 deep and has at most 512 parts, so that text from anywhere is judged in bounded time. Split a long condition: each line of `preconditions` is one condition, and all of them must hold.\n\nbad:  ((((((((((((((((((((((((((((((((( active_jobs == 0 )))))))))))))))))))))))))))))))))\ngood: active_jobs == 0";
    BAD_CHARACTER = "CN0002", "character without a meaning",
        "Conditions are made of names such as `node.state`, 'texts', numbers, durations, parentheses, lists and the operators == != < <= > >= in, not in, is known, and, or, not. Typographic quotes and invisible spaces often come along when a condition is copied from a document.\n\nbad:  node.name == \u{2018}gpu017\u{2019}\ngood: node.name == 'gpu017'";
    UNTERMINATED_TEXT = "CN0003", "text does not end",
        "A text begins and ends with the same quote, ' or \", on one line. A quote inside is written \\' or \\\", a line break \\n.\n\nbad:  node.reason == 'memory error\ngood: node.reason == 'memory error'";
    BAD_ESCAPE = "CN0004", "unknown escape in a text",
        "After a backslash in a text stands one of ' \" \\ n r t, or u and four hexadecimal digits. A backslash itself is written \\\\. Nothing is guessed, because a text that differs by one character does not match.\n\nbad:  node.reason == 'C:\\disk'\ngood: node.reason == 'C:\\\\disk'";
    BAD_NUMBER = "CN0005", "not a number or duration",
        "Numbers are written 5, -5, 0.5 or 1e6; durations are whole numbers with the units ms, s, m, h, d, such as 90s or 1h30m. Versions are written in quotes, because 23.10 as a number would be 23.1.\n\nbad:  slurm.version >= 23.02.1\ngood: slurm.version >= '23.02.1'";
    FOREIGN_OPERATOR = "CN0006", "operator of another language",
        "The operators are those of Python and Jinja, in small letters: and, or, not, ==, !=, <, <=, >, >=, in, not in. A single = is refused, so that a slip does not turn a comparison into something else.\n\nbad:  active_jobs = 0 && !node.reserved\ngood: active_jobs == 0 and not node.reserved";
    NOT_IN_LANGUAGE = "CN0007", "not part of conditions",
        "Conditions compare facts with values; they do not compute. There is no arithmetic, no filter, no function, no index and no template, so that each condition can be checked when the playbook loads and always ends. What you need is a fact: `slurmedic facts` lists them.\n\nbad:  {{ active_jobs | int }} == 0\ngood: active_jobs == 0";
    UNEXPECTED = "CN0008", "something else was expected here",
        "A condition is one comparison, or several joined by and, or and not. Something is missing, or something stands where nothing can.\n\nbad:  active_jobs == and node.responding\ngood: active_jobs == 0 and node.responding";
    UNBALANCED = "CN0009", "unbalanced parentheses or brackets",
        "Each ( needs its ) and each [ its ], in the right order.\n\nbad:  node.state in [IDLE, COMPLETING and active_jobs == 0\ngood: node.state in [IDLE, COMPLETING] and active_jobs == 0";
    CHAINED = "CN0010", "chained comparison",
        "`a < b < c` means different things in different languages; write both comparisons and join them.\n\nbad:  1 < gpus.found < 8\ngood: 1 < gpus.found and gpus.found < 8";
    UNKNOWN_FACT = "CN0011", "no such fact",
        "A condition may only use declared facts; a misspelt name would otherwise be unknown for ever, and the playbook would never run. `slurmedic facts` lists every fact with its type and source. A text is written in quotes.\n\nbad:  node.sate == IDLE\ngood: node.state == IDLE";
    UNKNOWN_PARAM = "CN0012", "no such parameter",
        "`params.NAME` reads a parameter that the playbook declares under `params:`.\n\nbad:  alert.age < params.max_ages\ngood: alert.age < params.max_age";
    NEEDS_GPU = "CN0013", "this fact needs a GPU as the target",
        "Facts whose name begins with `gpu.` are about one GPU. A playbook with `target: node` has no such GPU, and the fact would be unknown for ever. Declare `target: gpu`, or use a fact of the node.\n\nbad:  target: node, with gpu.row_remap_failure == false\ngood: target: gpu, with gpu.row_remap_failure == false";
    UNKNOWN_WORD = "CN0014", "no such word",
        "A fact such as `node.state` is one word out of a closed set; a misspelt word would never match. `slurmedic facts` lists the words of each set.\n\nbad:  node.state in [IDLE, COMPLETNG]\ngood: node.state in [IDLE, COMPLETING]";
    BARE_WORD = "CN0015", "bare word without a set to belong to",
        "A bare word means something only beside a fact with a closed set of words. Texts are written in quotes; truth values are true and false.\n\nbad:  node.name == gpu017\ngood: node.name == 'gpu017'";
    TYPE_MISMATCH = "CN0016", "types do not match",
        "A fact is compared with a value of its own type, or with another fact of the same type; whole numbers may stand where real ones are due. Template engines answer such a comparison with a silent false, or a true that means nothing.\n\nbad:  active_jobs == '0'\ngood: active_jobs == 0";
    NOT_ORDERED = "CN0017", "no order on this type",
        "<, <=, > and >= compare ints, floats, durations and versions. Texts, words, bools and lists have no order that means anything here: use ==, != or in.\n\nbad:  node.state < DRAINED\ngood: node.state in [IDLE, MIXED]";
    NOT_A_LIST = "CN0018", "right of `in` is not a list",
        "`in` asks whether a list holds a value. Right of it stands a list, or a fact that is a list. It does not look for a piece of a text: 'IDLE' is a piece of 'IDLE+DRAIN', and a drained node is not idle.\n\nbad:  'gpu' in node.name\ngood: 'gpu' in node.features";
    NOT_A_CONDITION = "CN0019", "not true or false",
        "The outcome of a condition is true, false or unknown. A number, a text or a list alone is none of these, and nothing is converted: 0 is not false.\n\nbad:  not active_jobs\ngood: active_jobs == 0";
    CONSTANT = "CN0020", "always the same",
        "This part does not depend on any fact, so it is always true or always false. `or true` would permit everything; `and false` would hide everything else.\n\nbad:  active_jobs == 0 or true\ngood: active_jobs == 0";
    NO_VALUE = "CN0021", "comparison with none or null",
        "Unknown is not a value here and equals nothing. Ask for it with `is known` and `is unknown`; both are always true or false.\n\nbad:  gpu.xid != none\ngood: gpu.xid is known";
    BAD_IS = "CN0022", "`is` asks only for known and unknown",
        "`FACT is known`, `FACT is unknown` and `FACT is not known` ask whether a fact has a value. Values are compared with == and !=.\n\nbad:  node.state is IDLE\ngood: node.state == IDLE";
    BAD_VERSION = "CN0023", "text is not a version",
        "A version is compared by its numbers: '23.02' is less than '23.11.4' and equal to '23.2.0'. A packaging suffix such as -1 does not count, and a pre-release such as 24.11.0-0rc1 comes before its release.\n\nbad:  slurm.version >= 'v23'\ngood: slurm.version >= '23.02'";
    WORD_UNKNOWN = "CN0024", "UNKNOWN is not a value",
        "UNKNOWN is what a source says when it does not know. A fact with this word counts as unknown, so comparing with the word would never hold.\n\nbad:  node.state != UNKNOWN\ngood: node.state is known";
    BAD_LIST = "CN0025", "list cannot be used like this",
        "A list stands right of `in`, is not empty, and holds finished values or words. To compare with several facts, write several comparisons.\n\nbad:  node.name in [params.first, params.second]\ngood: node.name == params.first or node.name == params.second";
}

#[cfg(test)]
mod tests {
    use super::CODES;

    #[test]
    fn codes_are_contiguous_and_each_has_both_examples() {
        for (i, (code, title, text)) in CODES.iter().enumerate() {
            assert_eq!(*code, format!("CN{:04}", i + 1));
            assert!(!title.is_empty() && !title.ends_with('.'), "{code}");
            assert!(text.contains("\n\nbad:  ") && text.contains("\ngood: "), "{code}");
        }
    }
}
