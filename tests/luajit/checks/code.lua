-- More code than the areas hold: every function is compiled, and what is full is thrown away.
local sum, kept = 0, {}
for n = 1, tonumber(arg[1] or 1500) do
  local f = assert(loadstring(([[
    local s, t = 0, {}
    for i = 1, 100 do
      if i %% 7 == %d then s = s + %d.5 * i else s = s - i end
      t[i %% 10] = s
    end
    return s + t[%d]
  ]]):format(n % 7, n, n % 10)))
  sum = sum + f() + f()
  if n % 50 == 0 then kept[#kept + 1] = f end
  if n % 100 == 0 then
    for _, g in ipairs(kept) do sum = sum + g() end
  end
end
print(sum)
