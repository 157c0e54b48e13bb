//! The subcommands that make credentials: `certs`, `user`, `token` and `secret`. No secret is ever an argument: other users of the
//! machine see those.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use windrow_auth::Role;

use super::TEMPLATE;

const CERTS_EXAMPLES: &str = "Examples:
  windrow certs init                               for this machine, into the folder `certs`
  windrow certs init --host db.example.org --host 192.0.2.7";

/// Arguments of `windrow certs`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = CERTS_EXAMPLES)]
pub(crate) struct CertsArguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: CertsAction,
}

/// What `windrow certs` does.
#[derive(Debug, Subcommand)]
pub(crate) enum CertsAction {
    /// Make an authority, and certificates for a scheduler and its executors
    Init(CertsInitArguments),
}

/// Arguments of `windrow certs init`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = CERTS_EXAMPLES)]
pub(crate) struct CertsInitArguments {
    /// The folder for the certificates and their keys
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub(crate) output: PathBuf,
    /// A name or an address that clients and executors connect to, besides this machine's own; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
}

const USER_EXAMPLES: &str = "Examples:
  windrow user add alice --role writer --users-file users       asks for the password, twice
  pass show alice | windrow user add alice --users-file users --password-stdin
  windrow user list --users-file users";

/// Arguments of `windrow user`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = USER_EXAMPLES)]
pub(crate) struct UserArguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: UserAction,
}

/// What `windrow user` does.
#[derive(Debug, Subcommand)]
pub(crate) enum UserAction {
    /// Add a user, or give one another password and role
    Add(UserAddArguments),
    /// Remove a user
    Remove(UserRemoveArguments),
    /// List the users with their roles
    List(UserListArguments),
}

/// The file of users.
#[derive(Debug, Args)]
pub(crate) struct UsersFile {
    /// The file with names, roles and hashes of passwords; a scheduler that has it notices changes
    #[arg(long = "users-file", value_name = "FILE", env = "WINDROW_SECURITY__USERS_FILE", hide_env_values = true)]
    pub(crate) path: PathBuf,
}

/// Arguments of `windrow user add`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = USER_EXAMPLES)]
pub(crate) struct UserAddArguments {
    /// The name: 1 to 64 letters, digits, and any of _ . @ -
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Readers run queries, writers change tables and files, admins see and stop what others run
    #[arg(long, value_name = "ROLE", default_value_t = Role::Reader, value_parser = role())]
    pub(crate) role: Role,
    /// The file.
    #[command(flatten)]
    pub(crate) file: UsersFile,
    /// Read the password from standard input [default: WINDROW_PASSWORD, or ask]
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

/// Arguments of `windrow user remove`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = USER_EXAMPLES)]
pub(crate) struct UserRemoveArguments {
    /// The name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The file.
    #[command(flatten)]
    pub(crate) file: UsersFile,
}

/// Arguments of `windrow user list`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = USER_EXAMPLES)]
pub(crate) struct UserListArguments {
    /// The file.
    #[command(flatten)]
    pub(crate) file: UsersFile,
}

const TOKEN_EXAMPLES: &str = "Examples:
  windrow token create etl --role writer --tokens-file tokens --expires 30d
  WINDROW_TOKEN=$(windrow token create ci --tokens-file tokens)
  windrow token list --tokens-file tokens
  windrow token remove etl --tokens-file tokens";

/// Arguments of `windrow token`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = TOKEN_EXAMPLES)]
pub(crate) struct TokenArguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

/// What `windrow token` does.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Make a token and print it, once
    Create(TokenCreateArguments),
    /// List the tokens: whose they are, never what they are
    List(TokenListArguments),
    /// Remove the tokens of a name; a scheduler that has the file refuses them within a second
    Remove(TokenRemoveArguments),
}

/// The file of tokens.
#[derive(Debug, Args)]
pub(crate) struct TokensFile {
    /// The file with names, roles and hashes of tokens; a scheduler that has it notices changes
    #[arg(long = "tokens-file", value_name = "FILE", env = "WINDROW_SECURITY__TOKENS_FILE", hide_env_values = true)]
    pub(crate) path: PathBuf,
}

/// Arguments of `windrow token list`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = TOKEN_EXAMPLES)]
pub(crate) struct TokenListArguments {
    /// The file.
    #[command(flatten)]
    pub(crate) file: TokensFile,
}

/// Arguments of `windrow token remove`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = TOKEN_EXAMPLES)]
pub(crate) struct TokenRemoveArguments {
    /// Whose tokens
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Only the token with this id, as `windrow token list` shows it
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// The file.
    #[command(flatten)]
    pub(crate) file: TokensFile,
}

/// Arguments of `windrow token create`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = TOKEN_EXAMPLES)]
pub(crate) struct TokenCreateArguments {
    /// Whose token it is: 1 to 64 letters, digits, and any of _ . @ -
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Readers run queries, writers change tables and files, admins see and stop what others run
    #[arg(long, value_name = "ROLE", default_value_t = Role::Reader, value_parser = role())]
    pub(crate) role: Role,
    /// The file that its hash is added to; without its line a token is worth nothing
    #[arg(long, value_name = "FILE", env = "WINDROW_SECURITY__TOKENS_FILE", hide_env_values = true)]
    pub(crate) tokens_file: PathBuf,
    /// How long it lasts, as in 30d or 12h [default: until its line is removed]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) expires: Option<Duration>,
}

const SECRET_EXAMPLES: &str = "Examples:
  windrow secret create --output cluster.secret    copy it to every machine of the cluster";

/// Arguments of `windrow secret`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = SECRET_EXAMPLES)]
pub(crate) struct SecretArguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: SecretAction,
}

/// What `windrow secret` does.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretAction {
    /// Make a secret for a scheduler and its executors
    Create(SecretCreateArguments),
}

/// Arguments of `windrow secret create`.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = SECRET_EXAMPLES)]
pub(crate) struct SecretCreateArguments {
    /// The file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.map(Role::as_str)).try_map(|text| text.parse::<Role>())
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = windrow_core::config::parse_duration(text).map_err(|error| error.message)?;
    if duration.is_zero() { Err("it would be over at once".to_owned()) } else { Ok(duration) }
}
