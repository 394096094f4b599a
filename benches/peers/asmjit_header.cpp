// Passes the preprocessor where AsmJit is installed.
#include <asmjit/core.h>
