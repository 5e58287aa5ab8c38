/* A libnvidia-ml.so.1 with one RTX 3090, old enough to lack a function, for nvidia-ml-py's real calls (nvml.h). */
#include <string.h>
#include <unistd.h>

typedef int ret;
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } process;
enum { OK = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };

ret nvmlInitWithFlags(unsigned flags) { return OK; }
ret nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(ret code) { return code == NOT_SUPPORTED ? "Not Supported" : "Another Error"; }
ret nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "550.163.01", size); return OK; }
ret nvmlSystemGetCudaDriverVersion_v2(int *number) { *number = 12040; return OK; }
ret nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return OK; }
ret nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = (void *)0x1234; return OK; }
ret nvmlDeviceGetName(void *handle, char *text, unsigned size) { strncpy(text, "NVIDIA GeForce RTX 3090", size); return OK; }
ret nvmlDeviceGetUUID(void *handle, char *text, unsigned size) { strncpy(text, "GPU-abcdef", size); return OK; }
ret nvmlDeviceGetMemoryInfo(void *handle, memory *found) {
    found->total = 24ull << 30; found->free = 20ull << 30; found->used = 4ull << 30;
    return OK;
}
ret nvmlDeviceGetBAR1MemoryInfo(void *handle, memory *found) { found->total = 256ull << 20; return OK; }
ret nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) { *major = 8; *minor = 6; return OK; }
ret nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) { *milliwatts = 119000; return OK; }
ret nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *milliwatts) { return NOT_SUPPORTED; }
ret nvmlDeviceGetTemperature(void *handle, unsigned sensor, unsigned *celsius) { *celsius = 64; return OK; }
/* nvmlDeviceGetCurrentClocksEventReasons is not there: drivers before 535 do not have it */
ret nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process *found) {
    if (*count < 1) { *count = 1; return INSUFFICIENT_SIZE; }
    *count = 1;
    found[0].pid = (unsigned)getppid(); /* a program that is really there: whoever started the probe */
    found[0].used = 3ull << 30;
    return OK;
}
ret nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, process *found) { *count = 0; return OK; }
