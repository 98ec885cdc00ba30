# SPDX-License-Identifier: BSD-3-Clause
# Completion of penstock's commands, flags and options for bash; the program itself knows them.
_penstock()
{
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
	local IFS=$' \t\n' candidates

	COMPREPLY=()
	# Bash takes "cache=w" for three words.
	if [[ $word == "=" ]]; then
		word=
	elif [[ $before == "=" ]]; then
		before=${COMP_WORDS[COMP_CWORD - 2]}=
	fi
	[[ ${COMP_WORDS[COMP_CWORD]} != "=" ]] || before=$before=

	case $before in
	--socket | --api | --config | --iso | --write | -w | key-file=)
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
		return
		;;
	*= | --engine | --log-level)
		candidates=$(penstock help --names "$command" "$before" 2>/dev/null)
		;;
	*)
		if ((COMP_CWORD == 1)); then
			candidates=$(penstock help --names 2>/dev/null)
		else
			candidates=$(penstock help --names "$command" 2>/dev/null)
		fi
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$candidates" -- "$word")
	case $command in
	serve | run | check | create)
		((COMP_CWORD == 1)) || mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$word")
		;;
	esac
	[[ ${COMPREPLY[*]} != *= ]] || compopt -o nospace 2>/dev/null
}
complete -o filenames -F _penstock penstock
