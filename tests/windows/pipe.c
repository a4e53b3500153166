/* A client of a named pipe, as docker's CLI is one (go-winio): sends what it reads from standard input, then an empty
 * message, which ends its direction (not with "keep"), and prints what it gets up to such a message or the pipe's end.
 * usage: pipe.exe NAME [keep]; exit code 0 after an end, 1 without a pipe, 2 after a cut. */
#include <stdio.h>
#include <string.h>
#include <windows.h>

int main(int argc, char **argv) {
    static char data[65536];
    DWORD size, mode;
    HANDLE in = GetStdHandle(STD_INPUT_HANDLE), out = GetStdHandle(STD_OUTPUT_HANDLE), pipe;
    while ((pipe = CreateFileA(argv[1], GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, 0, NULL)) ==
           INVALID_HANDLE_VALUE) {
        if (GetLastError() != ERROR_PIPE_BUSY) {
            fprintf(stderr, "no pipe: error %lu\n", GetLastError());
            return 1;
        }
        Sleep(10);
    }
    if (!GetNamedPipeInfo(pipe, &mode, NULL, NULL, NULL) || !(mode & PIPE_TYPE_MESSAGE)) {
        fprintf(stderr, "it is no pipe of messages\n");
        return 1;
    }
    while (ReadFile(in, data, sizeof data, &size, NULL) && size > 0)
        if (!WriteFile(pipe, data, size, &size, NULL))
            return fprintf(stderr, "cannot write: error %lu\n", GetLastError()), 2;
    if (argc < 3 && !WriteFile(pipe, data, 0, &size, NULL))
        return fprintf(stderr, "cannot end: error %lu\n", GetLastError()), 2;
    for (;;) {
        if (!ReadFile(pipe, data, sizeof data, &size, NULL) && GetLastError() != ERROR_MORE_DATA) {
            if (GetLastError() == ERROR_BROKEN_PIPE)
                return 0;
            return fprintf(stderr, "cut: error %lu\n", GetLastError()), 2;
        }
        if (size == 0)
            return 0;
        WriteFile(out, data, size, &size, NULL);
    }
}
