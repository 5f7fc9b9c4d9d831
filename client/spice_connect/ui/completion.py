"""Scripts for the shells to complete our command line.

click's own completion starts Python at each TAB. These scripts contain the options, and read the
names of VMs from a file (see files.py): they start no program and ask no server.
"""

from typing import NamedTuple

import click

BASH = r"""
_spice_connect() {
    local current=${COMP_WORDS[COMP_CWORD]} file=${XDG_CACHE_HOME:-} word before
    COMPREPLY=()
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        [[ $word == -- ]] && return  # what follows is the viewer's
    done
    case ${COMP_WORDS[COMP_CWORD-1]} in
        --completion) mapfile -t COMPREPLY < <(compgen -W 'bash zsh fish' -- "$current"); return ;;
        @VALUED@) return ;;
    esac
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '@NAMES@' -- "$current")
        return
    fi
    [[ $file == /* ]] || file=~/.cache
    [[ -r $file/spice-connect/vms ]] || return
    while read -r word _; do  # the same name on several hosts is on adjacent lines
        [[ $word == "$current"* && $word != "${before-}" ]] && COMPREPLY+=("$word")
        before=$word
    done <"$file/spice-connect/vms"
}
complete -F _spice_connect spice-connect
"""

ZSH = r"""#compdef spice-connect
_spice_connect() {
    local file=${XDG_CACHE_HOME:-}
    local -a options
    local -aU vms
    options=(
@DESCRIBED@
    )
    (( ${words[(i)--]} < CURRENT )) && return 1  # what follows is the viewer's
    case ${words[CURRENT-1]} in
        (--completion) compadd bash zsh fish; return ;;
        (@VALUED@) return 1 ;;
    esac
    if [[ $PREFIX == -* ]]; then
        _describe option options
        return
    fi
    [[ $file == /* ]] || file=~/.cache
    [[ -r $file/spice-connect/vms ]] && vms=(${${(f)"$(<$file/spice-connect/vms)"}%% *})
    _describe VM vms
}
if [[ ${funcstack[1]-} == _spice_connect ]]; then
    _spice_connect "$@"
else
    compdef _spice_connect spice-connect
fi
"""

FISH = r"""
function __spice_connect_vms
    set -l base "$XDG_CACHE_HOME"
    string match -q '/*' -- $base; or set base ~/.cache
    test -r $base/spice-connect/vms; or return
    while read -l name host
        echo $name
    end <$base/spice-connect/vms
end
complete -c spice-connect -f
complete -c spice-connect -n 'not contains -- -- (commandline -opc)' -a '(__spice_connect_vms)'
@COMPLETE@
"""

SHELLS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


class Known(NamedTuple):
    names: list[str]
    help: str
    takes_value: bool


def script(shell: str, command: click.Command) -> str:
    """The completion script. `shell`: a key of SHELLS."""
    options = [
        Known([*option.opts], option.help or "", not (option.is_flag or option.count))
        for option in command.params
        if isinstance(option, click.Option)
    ]
    options.append(Known(["-h", "--help"], "Show the help.", takes_value=False))
    parts = {
        "@NAMES@": " ".join(name for option in options for name in option.names),
        "@VALUED@": "|".join(o for option in options if option.takes_value for o in option.names),
        "@DESCRIBED@": "\n".join(_zsh(option) for option in options),
        "@COMPLETE@": "\n".join(_fish(option) for option in options),
    }
    text = SHELLS[shell]
    for place, part in parts.items():
        text = text.replace(place, part)
    return text.strip()


def _zsh(option: Known) -> str:
    return "\n".join(f"        {_quote(name + ':' + option.help)}" for name in option.names)


def _fish(option: Known) -> str:
    names = [
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
    ]
    value = " -x" if option.takes_value else ""
    choices = " -a 'bash zsh fish'" if "--completion" in option.names else ""
    described = f"-d {_quote(option.help)}"
    return f"complete -c spice-connect {' '.join(names)} {described}{value}{choices}"


def _quote(text: str) -> str:
    """In single quotes. The shells quote an apostrophe in different ways, so replace it."""
    return "'" + text.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}") + "'"
