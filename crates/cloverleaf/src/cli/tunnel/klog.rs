//! The flags of the originals' library for logs. They change nothing here: the log goes to stderr, always.

use clap::Args;

use super::boolean;

/// See the module. `-v` is not among them: it has a meaning.
#[derive(Debug, Args)]
pub(crate) struct KlogArgs {
    #[arg(long, hide = true, value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) logtostderr: bool,
    #[arg(long, hide = true, value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) alsologtostderr: bool,
    #[arg(long, hide = true, value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) add_dir_header: bool,
    #[arg(long, hide = true, value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) one_output: bool,
    #[arg(long, hide = true, value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) skip_headers: bool,
    #[arg(long, hide = true, value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) skip_log_headers: bool,
    #[arg(long, hide = true, default_value = "")]
    pub(crate) log_file: String,
    #[arg(long, hide = true, default_value = "")]
    pub(crate) log_dir: String,
    #[arg(long, hide = true, default_value = "")]
    pub(crate) log_file_max_size: String,
    #[arg(long, hide = true, default_value = "")]
    pub(crate) log_backtrace_at: String,
    #[arg(long, hide = true, default_value = "")]
    pub(crate) stderrthreshold: String,
    #[arg(long, hide = true, default_value = "")]
    pub(crate) vmodule: String,
}
