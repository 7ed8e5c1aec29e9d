# What makes root folders of parts of a FreeBSD: for the lab's host (image) and its guest (guest).
fail() {
	echo "$0: $*" >&2
	exit 1
}
# new_root ROOT FOLDER...: an empty root with empty folders.
new_root() {
	chmod -R u+rwx "$1" 2>/dev/null || true
	rm -rf "$1"
	parent=$1
	shift
	for folder; do
		mkdir -p "$parent/$folder"
	done
}
# take LIST BASE ROOT: what a list (base.list says how it reads) names of a FreeBSD in BASE.
take() {
	missing=
	while read -r path; do
		case $path in
		'' | '#'*) continue ;;
		'?'*) path=${path#\?} needed= ;;
		*) needed=1 ;;
		esac
		if [ -e "$2/$path" ] || [ -h "$2/$path" ]; then
			folder=$(dirname "$3/$path")
			mkdir -p "$folder"
			cp -RPp "$2/$path" "$folder/"
		elif [ -n "$needed" ]; then
			missing="$missing $path"
		fi
	done <"tests/lab/freebsd/$1"
	[ -z "$missing" ] || fail "$2 lacks$missing"
}
# libraries BASE ROOT: those of its programs, until nothing needs another one.
libraries() {
	while :; do
		find "$2/bin" "$2/sbin" "$2/lib" "$2/libexec" "$2/usr" "$2/root" -type f |
			xargs readelf -d 2>/dev/null | sed -n 's/.*(*NEEDED)*.*\[\(.*\)\].*/\1/p' | sort -u >"$2.needed"
		more=
		while read -r library; do
			for folder in lib usr/lib; do
				if [ ! -e "$2/$folder/$library" ] && [ -e "$1/$folder/$library" ]; then
					mkdir -p "$2/$folder"
					cp -Lp "$1/$folder/$library" "$2/$folder/"
					more=1
				fi
			done
		done <"$2.needed"
		[ -n "$more" ] || break
	done
	missing=
	while read -r library; do
		[ -e "$2/lib/$library" ] || [ -e "$2/usr/lib/$library" ] || missing="$missing $library"
	done <"$2.needed"
	[ -z "$missing" ] || fail "$1 lacks libraries:$missing"
}
