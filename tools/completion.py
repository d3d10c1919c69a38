"""Prints a script by which a shell completes commands, flags, and the values of flags.

  source <(deeplab-tf completion bash)      in ~/.bashrc
  source <(deeplab-tf completion zsh)       in ~/.zshrc, after compinit

Flags that hold paths complete files, those of a choice its values, also behind a comma.
"""

import importlib
from collections.abc import Sequence

from absl import flags

from deeplab_tf import configs
from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.errors import unknown_name
from deeplab_tf.tools import cli, help_pages, options, topics

SHELLS = ("bash", "zsh")
_PATH = "@"  # stands in a script for the values of a flag that holds a path
# Choices by a table, which no type of an option has.
_NAMED = {"model_variant": ARCHITECTURES, "dataset": DATASETS}
_BASH = """# deeplab-tf: completion for bash. Made by `deeplab-tf completion bash`.
_deeplab_tf_flags() {
  case "$1" in
%(flags)s
  esac
}
_deeplab_tf_values() {
  case "$1 $2" in
%(values)s
  esac
}
_deeplab_tf() {
  local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" command="${COMP_WORDS[1]}"
  local flag="" values first=""
  COMPREPLY=()
  if (( COMP_CWORD == 1 )); then
    COMPREPLY=($(compgen -W "%(commands)s" -- "$current"))
    return
  fi
  case "$command" in
    help) COMPREPLY=($(compgen -W "%(topics)s" -- "$current")); return ;;
    completion) COMPREPLY=($(compgen -W "%(shells)s" -- "$current")); return ;;
  esac
  # Bash takes --flag=value for three words.
  if [[ "$current" == "=" ]]; then
    flag="$before"; current=""
  elif [[ "$before" == "=" ]]; then
    flag="${COMP_WORDS[COMP_CWORD-2]}"
  elif [[ "$before" == --* && "$current" != -* ]]; then
    flag="$before"
  fi
  if [[ -z "$flag" && "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "$(_deeplab_tf_flags "$command")" -- "$current"))
    [[ "${COMPREPLY[*]}" == *= ]] && compopt -o nospace
    return
  fi
  values="@"
  [[ -n "$flag" ]] && values="$(_deeplab_tf_values "$command" "${flag#--}")"
  if [[ "$values" == "@" ]]; then
    compopt -o filenames
    local IFS=$'\\n'
    COMPREPLY=($(compgen -f -- "$current"))
  else
    [[ "$current" == *,* ]] && first="${current%%,*},"
    COMPREPLY=($(compgen -P "$first" -W "$values" -- "${current##*,}"))
  fi
}
complete -F _deeplab_tf deeplab-tf
"""
_ZSH = """#compdef deeplab-tf
# deeplab-tf: completion for zsh. Made by `deeplab-tf completion zsh`.
_deeplab_tf() {
  local curcontext="$curcontext" state line
  if (( CURRENT == 2 )); then
    local -a commands=(
%(commands)s
    )
    _describe command commands
    return
  fi
  local command="${words[2]}"
  shift words
  (( CURRENT-- ))
  case "$command" in
    help) _values topic %(topics)s ;;
    completion) _values shell %(shells)s ;;
%(cases)s
  esac
}
compdef _deeplab_tf deeplab-tf
"""


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    text = f"shell: {', '.join(SHELLS)}; also without the name of the flag"
    flags.DEFINE_multi_string("shell", None, text, flag_values=values)


def _flags_of(command: str) -> flags.FlagValues:
    values = flags.FlagValues()
    importlib.import_module(f"deeplab_tf.tools.{cli.file_of(command)}").define(values)
    return values


def _choices(values: flags.FlagValues, name: str) -> Sequence[str]:
    """Returns what a flag may be; empty: anything; _PATH: a path."""
    flag = values[name]
    if name == "config":
        return sorted(configs.names())
    if name in _NAMED:
        return sorted(_NAMED[name])
    if isinstance(flag.parser, flags.EnumParser):
        return flag.parser.enum_values
    known = vars(flag).get("choices", ()) or (("true", "false") if flag.boolean else ())
    return known or ((_PATH,) if name in options.path_flags(values) else ())


def _spellings(values: flags.FlagValues, name: str) -> list[str]:
    return [f"--{name}", f"--no{name}"] if values[name].boolean else [f"--{name}="]


def bash() -> str:
    """Returns the script for bash."""
    known: list[str] = []
    choices: list[str] = []
    for command in cli.COMMANDS:
        values = _flags_of(command)
        spelled = [word for name in help_pages.listed(values) for word in _spellings(values, name)]
        known.append(f"    {command}) echo '--help --helpfull {' '.join(spelled)}' ;;")
        found = {name: " ".join(_choices(values, name)) for name in help_pages.listed(values)}
        choices += [f"    '{command} {name}') echo '{words}' ;;" for name, words in found.items() if words]
    return _BASH % {
        "flags": "\n".join(known),
        "values": "\n".join(choices),
        "commands": " ".join([*cli.COMMANDS, "help"]),
        "topics": " ".join([*cli.COMMANDS, *topics.TOPICS]),
        "shells": " ".join(SHELLS),
    }


def _quoted(text: str) -> str:
    """Returns a remark as _arguments and _describe take it inside of single quotes."""
    plain = " ".join(text.split()).translate({ord(mark): f"\\{mark}" for mark in "\\[]:"})
    return plain.replace("'", "'\\''")


def _argument(values: flags.FlagValues, name: str) -> list[str]:
    told = _quoted(help_pages.text_of(values[name]))
    listed = isinstance(values[name], flags.MultiFlag)
    repeated = "*" if listed else ""
    if values[name].boolean:
        return [f"'--{name}[{told}]'", f"'--no{name}[not\\: {told}]'"]
    choices = _choices(values, name)
    action = " "
    if list(choices) == [_PATH]:
        action = "_files"
    elif choices:
        action = f"_sequence compadd - {' '.join(choices)}" if listed else f"({' '.join(choices)})"
    return [f"'{repeated}--{name}=[{told}]:{name}:{action}'"]


def zsh() -> str:
    """Returns the script for zsh."""
    cases: list[str] = []
    for command in cli.COMMANDS:
        if command == "completion":
            continue
        values = _flags_of(command)
        arguments = [argument for name in help_pages.listed(values) for argument in _argument(values, name)]
        listed = " \\\n      ".join(["'--help[the flags that matter most]'", "'--helpfull[all flags]'", *arguments])
        cases.append(f"    {command}) _arguments \\\n      {listed} \\\n      '*:file:_files' ;;")
    commands = {**cli.COMMANDS, "help": "explain a command or a subject"}
    return _ZSH % {
        "commands": "\n".join(f"      '{name}:{_quoted(told)}'" for name, told in commands.items()),
        "topics": " ".join([*cli.COMMANDS, *topics.TOPICS]),
        "shells": " ".join(SHELLS),
        "cases": "\n".join(cases),
    }


def main(values: flags.FlagValues) -> None:
    """Prints the script of a shell."""
    options.require(values, "shell")
    shell = values.shell[-1]
    if shell not in SHELLS:
        raise unknown_name("shell", shell, SHELLS)
    print(bash() if shell == "bash" else zsh())


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv, rest_is="shell")


if __name__ == "__main__":
    run()
