//! `token`: API tokens for the HTTP listener.

use super::Global;
use crate::config;
use crate::exit::{CliError, Exit};
use crate::printer::{Format, Printer, Tone, paint, tame};
use engine_core::policy::Role;
use engine_core::value::parse_duration;
use engine_server::{NewToken, TokenError, TokenFile, TokenScope};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What is done with tokens.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    verb: TokenVerb,
}

#[derive(Debug, clap::Subcommand)]
enum TokenVerb {
    /// Make a token; it is shown once and kept nowhere.
    New(NewArgs),
    /// List the tokens: names, roles, scopes, ends.
    List,
    /// Take a token away; the engine refuses it at once.
    Revoke {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, clap::Args)]
struct NewArgs {
    /// Its name: for the log, and for revoking it.
    name: String,
    /// Most that it may.
    #[arg(long, value_enum, default_value_t = RoleArg::Viewer)]
    role: RoleArg,
    /// What it is for; may be given several times.
    #[arg(long, value_enum, required = true)]
    scope: Vec<ScopeArg>,
    /// The person whose it is, by login name. Only a person's token says yes or no to plans.
    #[arg(long, value_name = "LOGIN")]
    person: Option<String>,
    /// How long it lives, such as `12h` or `90d`.
    #[arg(long, default_value = "90d", value_name = "TIME")]
    expires: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum RoleArg {
    Viewer,
    Operator,
    Approver,
    Admin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ScopeArg {
    Api,
    Alerts,
    Metrics,
}

/// Runs `token`.
pub(crate) fn run(args: &TokenArgs, global: &Global, printer: &mut Printer) -> Result<Exit, CliError> {
    let path = file(global)?;
    let mut tokens = TokenFile::read(&path)?;
    match &args.verb {
        TokenVerb::New(a) => {
            let now = Timestamp::now();
            let life = parse_life(&a.expires)?;
            let expires_at =
                now.checked_add(life).map_err(|_| CliError::usage("--expires: that is too long"))?;
            let new = NewToken {
                name: a.name.clone(),
                role: role(a.role),
                scopes: a.scope.iter().map(|s| scope(*s)).collect(),
                person: a.person.clone(),
                expires_at,
            };
            let text = tokens.add(new, now)?;
            tokens.write(&path)?;
            match printer.format {
                Format::Json => printer.json(&serde_json::json!({
                    "format": "slurmedic/token/1", "name": a.name, "token": text, "expires_at": expires_at
                }))?,
                Format::Text => {
                    printer.say(format!(
                        "token {} until {}; it is not shown again",
                        a.name,
                        expires_at.strftime("%Y-%m-%d %H:%M UTC")
                    ));
                    printer.out(text);
                }
            }
        }
        TokenVerb::List => list(&tokens, printer)?,
        TokenVerb::Revoke { name } => {
            if !tokens.revoke(name) {
                return Err(CliError::usage(format!("there is no token {}", tame(name)))
                    .with_hint("`slurmedic token list` names them"));
            }
            tokens.write(&path)?;
            match printer.format {
                Format::Json => printer.json(
                    &serde_json::json!({ "format": "slurmedic/token/1", "name": name, "revoked": true }),
                )?,
                Format::Text => printer.out(format!("token {} is revoked", tame(name))),
            }
        }
    }
    Ok(Exit::Ok)
}

fn list(tokens: &TokenFile, printer: &mut Printer) -> Result<(), CliError> {
    if printer.format == Format::Json {
        return printer.json(tokens);
    }
    if tokens.tokens.is_empty() {
        printer.out("there is no token");
        return Ok(());
    }
    let head = format!("{:<20} {:<9} {:<19} {:<12} {}", "NAME", "ROLE", "SCOPES", "PERSON", "EXPIRES (UTC)");
    printer.out(paint(Tone::Strong, head));
    let now = Timestamp::now();
    for t in &tokens.tokens {
        let scopes: BTreeSet<&str> = t.scopes.iter().map(|s| s.as_str()).collect();
        let scopes = scopes.into_iter().collect::<Vec<_>>().join(",");
        let void = if t.expires_at <= now { " expired" } else { "" };
        printer.out(format!(
            "{:<20} {:<9} {scopes:<19} {:<12} {}{}",
            tame(&t.name),
            t.role.as_str(),
            tame(t.person.as_deref().unwrap_or("-")),
            t.expires_at.strftime("%Y-%m-%d"),
            paint(Tone::Warn, void)
        ));
    }
    Ok(())
}

fn file(global: &Global) -> Result<PathBuf, CliError> {
    let (config, _) = config::load(global.config.as_deref())?;
    config.server.tokens.ok_or_else(|| {
        CliError::usage("this site has no file of tokens")
            .with_hint("set server.tokens in the configuration, e.g. \"/etc/slurmedic/tokens.json\"")
    })
}

/// Reads a time, with days, which lives of tokens are counted in.
fn parse_life(text: &str) -> Result<SignedDuration, CliError> {
    if let Some(days) = text.strip_suffix('d').and_then(|d| d.parse::<u16>().ok()) {
        return Ok(SignedDuration::from_hours(24 * i64::from(days)));
    }
    parse_duration(text).map_err(|e| CliError::usage(format!("--expires: {e}")))
}

fn role(arg: RoleArg) -> Role {
    match arg {
        RoleArg::Viewer => Role::Viewer,
        RoleArg::Operator => Role::Operator,
        RoleArg::Approver => Role::Approver,
        RoleArg::Admin => Role::Admin,
    }
}

fn scope(arg: ScopeArg) -> TokenScope {
    match arg {
        ScopeArg::Api => TokenScope::Api,
        ScopeArg::Alerts => TokenScope::Alerts,
        ScopeArg::Metrics => TokenScope::Metrics,
    }
}

impl From<TokenError> for CliError {
    fn from(e: TokenError) -> Self {
        match e {
            TokenError::Usage(why) => Self::usage(why),
            e => Self::caused("tokens", e),
        }
    }
}
